"""Dice of regions alone, where no other score is asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from factorizer_nnunet.evaluation.schemes import Labels


def dice_of_regions(
    segmentation: np.ndarray, reference: np.ndarray, regions: Mapping[str, Labels], ignore: int | None
) -> dict[str, float | None]:
    """Dice of each region; None where it is in neither.

    Args:
        segmentation, reference: labels of one grid.
        regions: label values by name.
        ignore: value of the reference whose voxels do not count.
    """
    scored = np.ones(reference.shape, bool) if ignore is None else reference != ignore
    result: dict[str, float | None] = {}
    for name, values in regions.items():
        here, there = (np.isin(array, values) & scored for array in (segmentation, reference))
        total = int(here.sum()) + int(there.sum())
        result[name] = 2 * int((here & there).sum()) / total if total else None
    return result
