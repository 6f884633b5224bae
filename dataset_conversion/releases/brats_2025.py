"""BraTS 2025 as far as known: tasks that continue with earlier names and files.

Each declaration states its differences from an earlier year. Root folders are unconfirmed except for GLI and MET.
"""

from __future__ import annotations

from dataclasses import replace

from factorizer_nnunet.dataset_conversion.releases import brats_2023, brats_2024
from factorizer_nnunet.dataset_conversion.releases.brats import WITH_CAVITY, timepoint_case

_PAGE = "https://www.synapse.org/Synapse:syn64153130"
_LICENCE = "see the terms of the challenge"  # unconfirmed except for MET

# Cases before treatment in new folders, and cases after treatment in those of 2024 on other grids.
BRATS_2025_GLI = replace(
    brats_2024.BRATS_2024_GLI,
    key="brats2025-gli",
    title="BraTS 2025 GLI",
    case=timepoint_case("GLI"),
    root=r".*BraTS-?2025-GLI.*",
    example="BraTS2025-GLI-PRE-Challenge-TrainingData/BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz",
    licence=_LICENCE,
    reference=_PAGE,
)

# Half of the cases are in "UCSD - Training", on their own grids, with resection cavities.
BRATS_2025_MET = replace(
    brats_2024.BRATS_2024_MET,
    key="brats2025-met",
    title="BraTS 2025 MET",
    schemes=(WITH_CAVITY,),
    root=r".*BraTS-?2025-MET.*|UCSD - Training",
    preferred=r".*corrected-labels.*",
    constant_allowed=True,  # T2w is a dummy in some cases (one user's audit)
    values_hint=(
        "known cases are BraTS-MET-01094-002 with 129 voxels of 6, which users leave out (--skip-invalid) or replace "
        "(--remap BraTS-MET-01094-002:6=0, or 6=4 for the cavity), and BraTS-MET-01184-002 with 28 voxels of 8, which "
        "the organisers' corrected labels fix: also give the folder "
        "MICCAI-LH-BraTS2025-MET-Challenge-corrected-labels"
    ),
    example="MICCAI-LH-BraTS2025-MET-Challenge-Training/BraTS-MET-00001-000/BraTS-MET-00001-000-t1c.nii.gz",
    licence="CC BY-NC 4.0, according to one user; see the terms of the challenge",
    reference=f"{_PAGE}; arXiv:2306.00838",
)

BRATS_2025_SSA = replace(
    brats_2024.BRATS_2024_SSA,
    key="brats2025-ssa",
    title="BraTS 2025 SSA",
    root=r".*BraTS-?2025-SSA.*",
    licence=_LICENCE,
    reference=f"{_PAGE}; arXiv:2305.19369",
)

BRATS_2025_MEN = replace(
    brats_2023.BRATS_2023_MEN,
    key="brats2025-men",
    title="BraTS 2025 MEN",
    root=r".*BraTS-?2025-MEN(?!-RT).*",
    licence=_LICENCE,
    reference=f"{_PAGE}; arXiv:2305.07642",
)

BRATS_2025_MEN_RT = replace(
    brats_2024.BRATS_2024_MEN_RT,
    key="brats2025-men-rt",
    title="BraTS 2025 MEN-RT",
    root=r".*BraTS-?2025-MEN-RT.*",
    licence=_LICENCE,
    reference=f"{_PAGE}; arXiv:2405.18383",
)

BRATS_2025_PED = replace(
    brats_2024.BRATS_2024_PED,
    key="brats2025-ped",
    title="BraTS 2025 PED",
    root=r".*BraTS-?PEDs?-?2025.*|.*BraTS-?2025-PED.*",
    licence=_LICENCE,
    reference=f"{_PAGE}; arXiv:2404.15009",
)

BRATS_2025_GOAT = replace(
    brats_2024.BRATS_2024_GOAT,
    key="brats2025-goat",
    title="BraTS 2025 GoAT",
    root=r".*(?:MICCAI|BraTS)-?2025-(?:BraTS-)?GoAT.*",
    licence=_LICENCE,
    reference=_PAGE,
)
