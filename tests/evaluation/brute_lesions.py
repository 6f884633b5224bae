"""Lesions by flood fill over sets of voxels, and their scores; sizes are compared in whole voxels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import product

import numpy as np

from factorizer_nnunet.evaluation.lesions import LesionRule

Voxel = tuple[int, ...]
Voxels = frozenset[Voxel]


def neighbours(voxel: Voxel, connectivity: int) -> Iterable[Voxel]:
    axes = {6: 1, 18: 2, 26: 3}[connectivity]  # along so many axes at once
    for step in product((-1, 0, 1), repeat=3):
        if 0 < sum(map(abs, step)) <= axes:
            yield tuple(v + s for v, s in zip(voxel, step, strict=True))


def dilated(voxels: Voxels, times: int, shape: tuple[int, ...]) -> Voxels:
    for _ in range(times):
        near = {n for voxel in voxels for n in neighbours(voxel, 18)}
        voxels = voxels | {n for n in near if all(0 <= v < size for v, size in zip(n, shape, strict=True))}
    return voxels


def lesions(mask: np.ndarray, connectivity: int, dilation: int) -> list[tuple[Voxels, Voxels]]:
    """Voxels of each lesion, and those of its dilated form."""
    voxels = frozenset(tuple(map(int, voxel)) for voxel in np.argwhere(mask))
    left = set(dilated(voxels, dilation, mask.shape))
    found = []
    while left:
        component, edge = set(), {left.pop()}
        while edge:
            component |= edge
            edge = {n for voxel in edge for n in neighbours(voxel, connectivity)} & left
            left -= edge
        found.append((voxels & component, frozenset(component)))
    return found


def lesion_scores(
    reference: np.ndarray,
    prediction: np.ndarray,
    rule: LesionRule,
    smallest: tuple[int, int],
    hd95: Callable[[np.ndarray, np.ndarray], float],
    penalty: float,
) -> dict[str, float]:
    """All lesion scores of a rule without `min_iou`.

    Args:
        reference, prediction: masks (x, y, z).
        rule: what a lesion is; its limits in mm³ are not used.
        smallest: the most voxels of a reference lesion that is not counted, and of a predicted one that is removed.
        hd95: between two masks, mm.
        penalty: HD95 of a missed or false lesion, mm.
    """
    of_reference = lesions(reference, rule.connectivity, rule.dilation)
    of_prediction = [
        own
        for own, _ in lesions(prediction, rule.connectivity, rule.dilation if rule.dilate_predictions else 0)
        if len(own) > smallest[1]
    ]
    partners = [[p for p in of_prediction if p & grown] for _, grown in of_reference]
    false = sum(not any(p in found for found in partners) for p in of_prediction)
    counted = [n for n, (own, _) in enumerate(of_reference) if len(own) > smallest[0]]
    detected = sum(bool(partners[n]) for n in counted)
    dices, distances = [], []
    for n in counted:
        own, together = of_reference[n][0], frozenset().union(*partners[n])
        dices.append(2 * len(own & together) / (len(own) + len(together)))
        masks = [_mask(voxels, reference.shape) for voxels in (own, together)]
        distances.append(hd95(*masks) if together else penalty)
    punished = false if rule.punish_false else 0
    entries = len(counted) + punished
    f1_of = 2 * detected + len(counted) - detected + false
    return {
        "lesions_reference": len(counted),
        "lesions_prediction": len(of_prediction),
        "lesions_detected": detected,
        "lesions_missed": len(counted) - detected,
        "lesions_false": false,
        "lesion_count_error": abs(len(counted) - len(of_prediction)),
        "lesion_f1": 2 * detected / f1_of if f1_of else math.nan,
        "lesion_dice": sum(dices) / entries if entries else math.nan,
        "lesion_hd95": (sum(distances) + punished * penalty) / entries if entries else math.nan,
    }


def _mask(voxels: Iterable[Voxel], shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask
