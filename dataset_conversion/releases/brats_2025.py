"""BraTS 2025 as far as known: tasks that continue with earlier names and files.

Each declaration states its differences from an earlier year. Root folders are unconfirmed except for GLI and MET.
"""

from __future__ import annotations

import re
from dataclasses import replace

from factorizer_nnunet.dataset_conversion.releases import brats_2023, brats_2024
from factorizer_nnunet.dataset_conversion.releases.brats import WITH_CAVITY, timepoint_case
from factorizer_nnunet.dataset_conversion.spec import Release

_PAGE = "https://www.synapse.org/Synapse:syn64153130"


def _continued(last: Release) -> Release:
    """A task with the names and files of ``last``, in folders named after 2025."""
    key, title = (re.sub("202[34]", "2025", text) for text in (last.key, last.title))
    return replace(
        last,
        key=key,
        title=title,
        root=rf".*BraTS-?2025-{title.split()[-1]}.*",
        licence="see the terms of the challenge",  # unconfirmed except for MET
        reference=re.sub(r"https:\S*Synapse:syn\d+", _PAGE, last.reference),
    )


# Cases before treatment in new folders, and cases after treatment in those of 2024 on other grids.
BRATS_2025_GLI = replace(
    _continued(brats_2024.BRATS_2024_GLI),
    case=timepoint_case("GLI"),
    example="BraTS2025-GLI-PRE-Challenge-TrainingData/BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz",
    reference=_PAGE,
)

# Half of the cases are in "UCSD - Training", on their own grids, with resection cavities.
BRATS_2025_MET = replace(
    _continued(brats_2024.BRATS_2024_MET),
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
)

BRATS_2025_SSA = _continued(brats_2024.BRATS_2024_SSA)

BRATS_2025_MEN = replace(
    _continued(brats_2023.BRATS_2023_MEN),
    root=r".*BraTS-?2025-MEN(?!-RT).*",
)

BRATS_2025_MEN_RT = _continued(brats_2024.BRATS_2024_MEN_RT)

BRATS_2025_PED = replace(
    _continued(brats_2024.BRATS_2024_PED),
    root=r".*BraTS-?PEDs?-?2025.*|.*BraTS-?2025-PED.*",
)

BRATS_2025_GOAT = replace(
    _continued(brats_2024.BRATS_2024_GOAT),
    root=r".*(?:MICCAI|BraTS)-?2025-(?:BraTS-)?GoAT.*",
)
