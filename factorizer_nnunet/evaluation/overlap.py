"""Overlap of two masks: the package's one Dice formula, and Dice by region where no other score is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from factorizer_nnunet.evaluation.schemes import Labels


def dice(common: int, first: int, second: int) -> float:
    """Dice of two masks from their sizes and the size of their intersection, in voxels; NaN if both are empty."""
    return ratio(2 * common, first + second)


def iou(common: int, first: int, second: int) -> float:
    """Intersection over union, from the same sizes as `dice`; NaN if both masks are empty."""
    return ratio(common, first + second - common)


def ratio(part: float, total: float) -> float:
    """``part / total``; NaN if the total is 0."""
    return part / total if total else math.nan


def dice_of_regions(
    prediction: np.ndarray, reference: np.ndarray, regions: Mapping[str, Labels], ignore: int | None
) -> dict[str, float | None]:
    """Dice of each region; None if the region is in neither array.

    Args:
        prediction, reference: label arrays of the same shape.
        regions: label values by region name.
        ignore: label of the reference whose voxels are not scored.
    """
    scored = np.ones(reference.shape, bool) if ignore is None else reference != ignore
    result: dict[str, float | None] = {}
    for name, labels in regions.items():
        masks = [np.isin(array, labels) & scored for array in (prediction, reference)]
        first, second = (int(np.count_nonzero(mask)) for mask in masks)
        common = int(np.count_nonzero(masks[0] & masks[1]))
        result[name] = dice(common, first, second) if first + second else None
    return result
