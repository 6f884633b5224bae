"""ISLES 2022: the lesion in diffusion MR, with FLAIR on a grid of its own."""

from __future__ import annotations

from factorizer_nnunet.dataset_conversion.releases.isles import LESION
from factorizer_nnunet.dataset_conversion.spec import Channel, Release

ISLES_2022 = Release(
    key="isles2022",
    title="ISLES 2022",
    # Files lie in the session, or below dwi/ and anat/ there, in several spellings; all are found by their names.
    # "_registered" copies made by users end otherwise and are passed over.
    case=r"sub-strokecase\d{4}(?:_ses-\d+)?",
    channels=(
        Channel("DWI", "{case}_dwi"),
        Channel("ADC", "{case}_adc"),
        # E.g. 512x512x29 beside 112x112x73. Whether all 250 cases have it is unconfirmed.
        Channel("FLAIR", "{case}_flair", own_grid=True),
    ),
    label=("{case}_msk",),  # on the grid of DWI
    schemes=(LESION,),
    root=r"ISLES[-_]?2022.*",
    unlabelled=r"test(?:ing)?",  # the test cases have not been given out
    patient=r"(sub-strokecase\d{4}).*",
    # Named as the release names masks. Algorithms were handed in as containers, which wrote .mha files of their own.
    submission="{case}_msk.nii.gz",
    example="ISLES-2022/sub-strokecase0001/ses-0001/dwi/sub-strokecase0001_ses-0001_dwi.nii.gz",
    licence="CC BY-SA 4.0 by the organisers' repository, CC BY 4.0 by the record on Zenodo",
    reference="https://zenodo.org/records/7960856; doi:10.1038/s41597-022-01875-5",
)

RELEASES = (ISLES_2022,)
