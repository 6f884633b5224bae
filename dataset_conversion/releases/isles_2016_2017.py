"""ISLES 2016 and 2017: the final infarct from acute MR diffusion and perfusion. 2017 contains 2016."""

from __future__ import annotations

from functools import partial

from factorizer_nnunet.dataset_conversion.releases.isles import ARCHIVED_LABEL, LESION, MR, archived
from factorizer_nnunet.dataset_conversion.spec import Channel, Release

_year = partial(
    Release,
    # training_1; test_1 according to users.
    case=r"[a-z]+_?\d+",
    # The raw perfusion series (MR_4DPWI, five axes) is not a channel.
    channels=(
        Channel("ADC", archived(f"{MR}ADC")),
        Channel("MTT", archived(f"{MR}MTT", "mtt")),
        Channel("rCBF", archived(f"{MR}rCBF")),
        Channel("rCBV", archived(f"{MR}rCBV")),
        Channel("Tmax", archived(f"{MR}Tmax")),
        Channel("TTP", archived(f"{MR}TTP")),
    ),
    label=(ARCHIVED_LABEL,),
    schemes=(LESION,),
    submission="SMIR.my_result_01.{mtt}.nii",  # ends with the number of the MTT file, according to two users
    licence="CC BY 4.0 on Zenodo",
)

# Distributed both co-registered and not; in the latter the grids of a case differ, which is a problem. Folders are
# unconfirmed, and the example is from 2017.
ISLES_2016 = _year(
    key="isles2016",
    title="ISLES 2016",
    root=r"ISLES_?-?2016.*",
    unlabelled=r"(?:ISLES_?-?2016_?)?Test(?:ing)?",
    example="ISLES2016_Training/training_1/VSD.Brain.XX.O.MR_ADC.128020/VSD.Brain.XX.O.MR_ADC.128020.nii",
    reference="https://www.isles-challenge.org/ISLES2016/; doi:10.3389/fneur.2018.00679",
)

ISLES_2017 = _year(
    key="isles2017",
    title="ISLES 2017",
    root=r"ISLES_?-?2017.*",
    unlabelled=r"(?:ISLES_?-?2017_?)?Test(?:ing)?",
    example="ISLES2017_Training/training_1/VSD.Brain.XX.O.MR_ADC.128020/VSD.Brain.XX.O.MR_ADC.128020.nii",
    reference="https://www.isles-challenge.org/ISLES2017/; doi:10.3389/fneur.2018.00679",
)
