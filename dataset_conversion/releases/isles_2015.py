"""ISLES 2015: sub-acute lesions in MR (SISS) and the penumbra in MR perfusion (SPES)."""

from __future__ import annotations

from functools import partial

from factorizer_nnunet.dataset_conversion.releases.isles import LESION, MR, archived, archived_channels
from factorizer_nnunet.dataset_conversion.spec import Channel, Release

# The text before OT is unconfirmed: anything that ends with a dot, or nothing.
_LABEL = r"{case}/(?:[^/]+\.[^/]+/)?(?:VSD\.Brain\.XX\.O\.|[^/]+\.|)OT\.\d+"

_task = partial(
    Release,
    case=r"(?:case_)?(?P<number>\d+)",  # folders are called 1, 2, ...; for SPES unconfirmed
    label=(_LABEL,),
    schemes=(LESION,),
    licence="CC BY 4.0 on Zenodo; see the terms of the challenge",  # of the copy there; unconfirmed for 2015
    reference="https://www.isles-challenge.org/ISLES2015/; doi:10.1016/j.media.2016.07.009",
)

ISLES_2015_SISS = _task(
    key="isles2015-siss",
    title="ISLES 2015 SISS",
    case_name="siss_{number}",
    unlabelled_case_name="siss_test_{number}",  # both parts count from 1
    channels=(
        Channel("FLAIR", archived(f"{MR}Flair", "flair")),
        *archived_channels("T1", "T2", "DWI"),
    ),
    display="DWI",
    root=r"SISS_?2015.*",
    unlabelled=r"(?:SISS_?2015_?)?Test(?:ing)?",
    submission="VSD.my_result_01.{flair}.nii",  # the number is that of FLAIR, according to one user
    example="SISS2015_Training/1/VSD.Brain.XX.O.MR_Flair.70614/VSD.Brain.XX.O.MR_Flair.70614.nii",
)

# Labels contain 1 and 2, and it is unconfirmed which is the penumbra, the only one scored: a label with 2 is a problem
# until the user decides. The numbers in the example are invented.
ISLES_2015_SPES = _task(
    key="isles2015-spes",
    title="ISLES 2015 SPES",
    case_name="spes_{number}",
    unlabelled_case_name="spes_test_{number}",
    channels=archived_channels("T1c", "T2", "DWI", "CBF", "CBV", "TTP", "Tmax", numbered="T1c"),
    display="Tmax",  # the penumbra is a deficit of perfusion
    root=r"SPES_?2015.*",
    unlabelled=r"(?:SPES_?2015_?)?Test(?:ing)?",
    values_hint=(
        "labels of SPES contain both 1 and 2, and it is not published which is the penumbra, the one that is scored. "
        "Look at some cases, then choose for all of them: --remap 1=0 2=1 makes value 2 the lesion, --remap 2=0 makes "
        "it value 1"
    ),
    submission="VSD.my_result_01.{t1c}.nii",  # the number of the reference image, as in SISS: unconfirmed
    example="SPES2015_Training/1/VSD.Brain.XX.O.MR_T1c.36000/VSD.Brain.XX.O.MR_T1c.36000.nii",
)
