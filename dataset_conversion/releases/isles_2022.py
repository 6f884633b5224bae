"""ISLES 2022: the lesion in diffusion MR, with FLAIR on its own grid."""

from __future__ import annotations

from factorizer_nnunet.dataset_conversion.releases.isles import LESION
from factorizer_nnunet.dataset_conversion.spec import Channel, Release

ISLES_2022 = Release(
    key="isles2022",
    title="ISLES 2022",
    # Files are in the session folder, or in dwi/ and anat/ below it, with several spellings; all are found by name.
    # Names of "_registered" copies made by users end differently and do not match.
    case=r"sub-strokecase\d{4}(?:_ses-\d+)?",
    channels=(
        Channel("DWI", "{case}_dwi"),
        Channel("ADC", "{case}_adc"),
        # E.g. 512x512x29 with 112x112x73 for DWI. Unconfirmed whether all 250 cases have it.
        Channel("FLAIR", "{case}_flair", own_grid=True),
    ),
    display="DWI",
    label=("{case}_msk",),  # on the grid of DWI
    schemes=(LESION,),
    root=r"ISLES[-_]?2022.*",
    unlabelled=r"test(?:ing)?",  # the test cases are not public
    patient=r"(sub-strokecase\d{4}).*",
    # Named like the release's masks. Algorithms were submitted as containers, which wrote .mha files.
    submission="{case}_msk.nii.gz",
    example="ISLES-2022/sub-strokecase0001/ses-0001/dwi/sub-strokecase0001_ses-0001_dwi.nii.gz",
    licence="CC BY-SA 4.0 by the organisers' repository, CC BY 4.0 by the record on Zenodo",
    reference="https://zenodo.org/records/7960856; doi:10.1038/s41597-022-01875-5",
)
