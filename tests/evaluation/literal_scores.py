"""Challenge scores computed naively: lesion by lesion on complete arrays, with other libraries than the package.

Written from the challenges' code (see `factorizer_nnunet.evaluation.schemes` for the sources).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import surface_distance
from scipy import ndimage

EIGHTEEN, ALL = ndimage.generate_binary_structure(3, 2), np.ones((3, 3, 3))


def overlap_dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def hd95(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    return surface_distance.compute_robust_hausdorff(surface_distance.compute_surface_distances(a, b, spacing), 95)


def merged_by_dilation(mask: np.ndarray, rounds: int) -> np.ndarray:
    """Lesion numbers; components whose dilated forms touch have the same number."""
    grown = ndimage.binary_dilation(mask, EIGHTEEN, rounds) if rounds else mask
    return ndimage.label(grown, ALL)[0] * mask


def drop_small(lesions: np.ndarray, limit_mm3: float, voxel_mm3: float) -> np.ndarray:
    for number in np.unique(lesions):
        if number and (lesions == number).sum() * voxel_mm3 <= limit_mm3:
            lesions = np.where(lesions == number, 0, lesions)
    return lesions


def join_touching(lesions: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Merge lesions whose first touched lesion of the other region is the same."""
    result = lesions.copy()
    for number in np.unique(lesions[lesions > 0]):
        touched = other[ndimage.binary_dilation(lesions == number, EIGHTEEN)]
        touched = touched[touched > 0]
        if touched.size:
            result[lesions == number] = lesions.max() + touched.min()
    return result


def lesion_wise(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: tuple[float, ...],
    rounds: int,
    limit_mm3: float,
    penalty: float,
    punish_false: bool = True,
) -> Mapping[str, float]:
    """Lesion-wise scores from arrays of lesion numbers."""
    voxel_mm3 = math.prod(spacing)
    dice, distance, reached, detected = [], [], set(), 0
    for number in np.unique(reference[reference > 0]):
        lesion = reference == number
        near = set(np.unique(prediction[ndimage.binary_dilation(lesion, EIGHTEEN, rounds)])) - {0}
        reached |= near
        if lesion.sum() * voxel_mm3 <= limit_mm3:
            continue
        detected += bool(near)
        found = np.isin(prediction, list(near))
        dice.append(overlap_dice(lesion, found))
        distance.append(hd95(lesion, found, spacing) if near else penalty)
    false = len(set(np.unique(prediction)) - {0} - reached)
    entries = len(dice) + (false if punish_false else 0)
    return {
        "lesions_reference": len(dice),
        "lesions_detected": detected,
        "lesions_false": false,
        "lesion_dice": sum(dice) / entries if entries else 1.0,
        "lesion_hd95": (sum(distance) + (false * penalty if punish_false else 0)) / entries if entries else 0.0,
    }


def isles_2022(reference: np.ndarray, prediction: np.ndarray) -> Mapping[str, float]:
    """F1 and count difference; one common voxel is enough for a lesion to be detected."""
    of_reference, n = ndimage.label(reference, ALL)
    of_prediction, m = ndimage.label(prediction, ALL)
    found = sum(bool(prediction[of_reference == number].any()) for number in range(1, n + 1))
    false = sum(not reference[of_prediction == number].any() for number in range(1, m + 1))
    return {
        "lesion_f1": found / (found + (false + n - found) / 2) if n + m else 1.0,
        "lesion_count_error": abs(n - m),
    }
