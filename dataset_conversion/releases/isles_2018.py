"""ISLES 2018: the infarct core from CT perfusion; each slab of a patient is a separate case."""

from __future__ import annotations

from factorizer_nnunet.dataset_conversion.releases.isles import ARCHIVED_LABEL, LESION, archived, archived_channels
from factorizer_nnunet.dataset_conversion.spec import Channel, Release

ISLES_2018 = Release(
    key="isles2018",
    title="ISLES 2018",
    case=r"case_\d+",
    unlabelled_case_name="test_{case}",  # both parts count from 1
    # An older package names the CT maps MR_; the raw series (CT_4DPWI) is not a channel. nnU-Net applies its CT
    # normalisation to channels named CT, which suits only the first.
    channels=(
        Channel("CT", archived("CT")),
        *archived_channels("CBF", "CBV", "MTT", "Tmax", numbered="MTT", prefix="(?:CT|MR)_"),
    ),
    display="CBF",
    label=(ARCHIVED_LABEL,),
    schemes=(LESION,),
    root=r"ISLES_?-?2018.*|TRAINING|TESTING",
    unlabelled=r"(?:ISLES_?-?2018_?)?Test(?:ing)?",
    patients_hidden=(
        "the 94 training cases come from 63 patients, and folders do not identify them: give --patients a CSV file "
        "with the columns case,patient from the download's table of slabs (case_64,Train_40)"
    ),
    submission="SMIR.my_result_01.{mtt}.nii",  # the number of the MTT file, according to two users
    example="TRAINING/case_1/SMIR.Brain.XX.O.CT.345562/SMIR.Brain.XX.O.CT.345562.nii",
    licence="CC BY 4.0 on Zenodo",  # unconfirmed for this year
    reference="https://www.isles-challenge.org/ISLES2018/; doi:10.1161/STROKEAHA.120.030696",
)
