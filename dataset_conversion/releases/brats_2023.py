"""BraTS 2023: glioma, glioma in Sub-Saharan Africa, meningioma, metastases, children."""

from __future__ import annotations

from functools import partial

from factorizer_nnunet.dataset_conversion.releases.brats import task_from_2023, timepoint_case

OTHER_NEOPLASMS = r"51_.*|.*neoplasm.*"  # folders of TCIA's BraTS-Africa, next to 95_Glioma

_task = partial(
    task_from_2023,
    2023,
    "https://www.synapse.org/Synapse:syn51156910",
    "free for research with the citations that the challenge requires; see its terms",
)

BRATS_2023_GLI = _task("GLI", "arXiv:2107.02314")(
    case=timepoint_case("GLI", r"0\d{2}"),  # -000 and -001; after treatment (2024) they start at -100
    example="ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz",
)

BRATS_2023_SSA = _task("SSA", "arXiv:2305.19369")(
    root=r".*BraTS-?2023-SSA.*|.*BraTS-Africa.*",
    preferred=r".*_V2",  # an earlier training folder has no V2; what was fixed is not published
    excluded=OTHER_NEOPLASMS,
    example="ASNR-MICCAI-BraTS2023-SSA-Challenge-TrainingData_V2/BraTS-SSA-00002-000/BraTS-SSA-00002-000-seg.nii.gz",
)

BRATS_2023_MEN = _task("MEN", "arXiv:2305.07642")(
    root=r".*BraTS-?2023-MEN(?!-RT).*",
    preferred=r".*MEN.*FIX.*",  # BraTS-MEN-TRAIN-FIX-V4 replaces about 48 cases; unconfirmed whether including images
    example=(
        "ASNR-MICCAI-BraTS2023-MEN-Challenge-TrainingData/BraTS-MEN-Train/BraTS-MEN-00001-000/"
        "BraTS-MEN-00001-000-t1c.nii.gz"
    ),
)

# External parts (UCSF, NYU) have other file names and are not converted.
BRATS_2023_MET = _task("MET", "arXiv:2306.00838")(
    example="ASNR-MICCAI-BraTS2023-MET-Challenge-TrainingData/BraTS-MET-00025-000/BraTS-MET-00025-000-t1c.nii.gz",
)

BRATS_2023_PED = _task("PED", "arXiv:2305.17033")(
    example="ASNR-MICCAI-BraTS2023-PED-Challenge-TrainingData/BraTS-PED-00002-000/BraTS-PED-00002-000-seg.nii.gz",
)
