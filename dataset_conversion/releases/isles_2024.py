"""ISLES 2024: the final infarct, drawn on follow-up MR, from acute CT; all on the grid of the native CT."""

from __future__ import annotations

from factorizer_nnunet.dataset_conversion.releases.isles import LESION
from factorizer_nnunet.dataset_conversion.spec import Channel, Release

# Session 1 is the acute CT. Session 2, on which the label was drawn, must never be an input. "ses-0001" and
# "strokecase" are older spellings.
_ACUTE = "{case}_ses-(?:00)?01"
_FOLLOW_UP = "{case}_ses-(?:00)?02"

ISLES_2024 = Release(
    key="isles2024",
    title="ISLES 2024",
    case=r"sub-stroke(?:case)?\d{4}",
    channels=(
        # Plain CT is only in raw_data; nnU-Net normalises both CT images as CT, in Hounsfield units.
        Channel("NCCT", f"{_ACUTE}_ncct", json_name="CT"),
        Channel("CTA", f"{_ACUTE}_space-ncct_cta", json_name="CT"),
        *(Channel(name, f"{_ACUTE}_space-ncct_{name.lower()}") for name in ("Tmax", "CBF", "CBV", "MTT")),
    ),
    # The second occurs in the organisers' sample, and as a stray file in native space of sub-stroke0142; the third
    # according to one user.
    display="Tmax",
    label=(
        f"{_FOLLOW_UP}_space-ncct_lesion-msk",
        f"{_FOLLOW_UP}_lesion-msk",
        f"{_FOLLOW_UP}_[^/]*ncct-masked_lesion-msk",
    ),
    schemes=(LESION,),
    root=r"ISLES[-_]?2024.*|train",
    unlabelled=r"test(?:ing)?",  # the test cases are not public
    patient=r"(sub-stroke(?:case)?\d{4})",
    non_finite_to_zero=True,  # sub-stroke0113 has 302261 such voxels in its MTT
    # Named like the release's masks. Algorithms were submitted as containers, which wrote .mha files.
    submission="{case}_ses-02_lesion-msk.nii.gz",
    example="train/raw_data/sub-stroke0001/ses-01/sub-stroke0001_ses-01_ncct.nii.gz",
    licence="CC BY-NC-SA 4.0 by the record on Zenodo, CC BY-NC by the organisers' repository",
    reference="https://zenodo.org/records/17652035; arXiv:2408.11142",
)
