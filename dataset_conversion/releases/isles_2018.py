"""ISLES 2018: the core from CT perfusion; a patient's slabs are cases of their own."""

from __future__ import annotations

from factorizer_nnunet.dataset_conversion.releases.isles import ARCHIVED_LABEL, LESION, archived
from factorizer_nnunet.dataset_conversion.spec import Channel, Release

ISLES_2018 = Release(
    key="isles2018",
    title="ISLES 2018",
    case=r"case_\d+",
    unlabelled_case_name="test_{case}",  # both parts count from 1
    # An older package calls the maps MR_, though they are CT's; the raw series (CT_4DPWI) is no channel. A channel
    # called CT gets nnU-Net's CT normalisation, which suits the first alone.
    channels=(
        Channel("CT", archived("CT")),
        Channel("CBF", archived("(?:CT|MR)_CBF")),
        Channel("CBV", archived("(?:CT|MR)_CBV")),
        Channel("MTT", archived("(?:CT|MR)_MTT", "mtt")),
        Channel("Tmax", archived("(?:CT|MR)_Tmax")),
    ),
    label=(ARCHIVED_LABEL,),
    schemes=(LESION,),
    root=r"ISLES_?-?2018.*|TRAINING|TESTING",
    unlabelled=r"(?:ISLES_?-?2018_?)?Test(?:ing)?",
    patients_hidden=(
        "94 training cases are 63 patients, and folders do not tell which slabs are of one patient: --patients takes "
        "a CSV file with the columns case,patient, as the download's table of slabs tells it (case_64,Train_40)"
    ),
    submission="SMIR.my_result_01.{mtt}.nii",  # the number of the MTT file: two users
    example="TRAINING/case_1/SMIR.Brain.XX.O.CT.345562/SMIR.Brain.XX.O.CT.345562.nii",
    licence="CC BY 4.0 on Zenodo",  # unconfirmed for this year
    reference="https://www.isles-challenge.org/ISLES2018/; doi:10.1161/STROKEAHA.120.030696",
)

RELEASES = (ISLES_2018,)
