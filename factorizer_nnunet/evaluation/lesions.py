"""Lesions of a mask, and which reference lesions the prediction has detected.

A lesion is a connected component. With dilation, components whose dilated forms touch are one lesion, and a predicted
lesion belongs to every reference lesion whose dilated form it overlaps (BraTS 2023, Saluja et al.).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import binary_dilation, generate_binary_structure

from factorizer_nnunet.evaluation.empty import DIAGONAL, Value
from factorizer_nnunet.imaging.components import Connectivity, connected_components
from factorizer_nnunet.imaging.limits import at_least, at_most

ALL_NEIGHBOURS = 26
EIGHTEEN = generate_binary_structure(3, 2)


@dataclass(frozen=True)
class LesionRule:
    """What a lesion is, which lesions are counted, and when one is detected."""

    connectivity: Connectivity = 26
    dilation: int = 0  # iterations with 18 neighbours
    dilate_predictions: bool = False  # predicted components whose dilated forms touch are one lesion, too
    min_reference_mm3: float = 0.0  # ignore reference lesions up to this volume, detected or not
    min_prediction_mm3: float = 0.0  # remove predicted lesions up to this volume first
    min_iou: float | None = None  # None: one common voxel is enough, and lesions may share partners; else one to one
    punish_false: bool = True  # false lesions enter lesion-wise means with Dice 0 and the penalty
    penalty: Value = DIAGONAL  # lesion-wise HD95 of a missed or false lesion, mm
    joined_by: tuple[tuple[int, ...], ...] = ()  # label values of regions whose lesions join what they touch


@dataclass(frozen=True)
class Lesions:
    """The lesions of one mask."""

    labels: np.ndarray  # (x, y, z), 1 to `count` in a lesion
    dilated: np.ndarray  # the same for their dilated forms
    count: int

    def elements(self, corners: np.ndarray) -> list[np.ndarray]:
        """Indices of the `corners` (between voxels) that touch each lesion, 0 (no lesion) to `count`.

        corners: (corners, 3) integers, in voxels from a corner of the image. The lesions must be those of 26
            neighbours, so that all lesion voxels around a corner belong to the same lesion.
        """
        padded = np.pad(self.labels, 1)
        steps = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
        flat, places = padded.ravel(), corners @ steps
        owner = flat[places]
        for shift in list(np.ndindex(2, 2, 2))[1:]:
            np.maximum(owner, flat[places + shift @ steps], out=owner)
        order = np.argsort(owner, kind="stable")
        return np.split(order, np.searchsorted(owner[order], np.arange(1, self.count + 1)))

    @cached_property
    def sizes(self) -> np.ndarray:
        """Voxels of each lesion, (count,)."""
        return np.bincount(self.labels.ravel(order="K"), minlength=self.count + 1)[1:]


@dataclass(frozen=True)
class Matching:
    """Which predicted lesions belong to which reference lesions; lesions are numbered from 1."""

    counted: tuple[int, ...]  # reference lesions that are not too small
    partners: dict[int, tuple[int, ...]]  # predicted lesions of every reference lesion, counted or not
    false: tuple[int, ...]  # predicted lesions that belong to none

    @property
    def detected(self) -> tuple[int, ...]:
        """Counted reference lesions that have a partner."""
        return tuple(lesion for lesion in self.counted if self.partners[lesion])


def reference_lesions(mask: np.ndarray, rule: LesionRule) -> Lesions:
    """The lesions of a reference mask, (x, y, z) booleans, including small ones."""
    return _lesions(mask, rule.connectivity, rule.dilation)


def predicted_lesions(mask: np.ndarray, rule: LesionRule, voxel_mm3: float) -> Lesions:
    """The lesions of a predicted mask without those that are too small."""
    found = _lesions(mask, rule.connectivity, rule.dilation if rule.dilate_predictions else 0)
    if not rule.min_prediction_mm3:
        return found
    keep = ~at_most(found.sizes * voxel_mm3, rule.min_prediction_mm3)
    return _renumbered(found, np.where(keep, np.arange(1, found.count + 1), 0))


def joined(lesions: Lesions, other: Lesions) -> Lesions:
    """Make lesions that touch (18 neighbours) the same lesion of another region one.

    A lesion that touches several is joined by the first of them, as in the code of BraTS 2024.
    """
    first: dict[int, int] = {}
    for lesion, touched in sorted(_touching(lesions.labels, other.labels)):
        first.setdefault(lesion, touched)
    groups = [(1, first[n]) if n in first else (0, n) for n in range(1, lesions.count + 1)]
    numbers = {group: n for n, group in enumerate(sorted(set(groups)), 1)}
    return _renumbered(lesions, np.array([numbers[group] for group in groups], int))


def match(reference: Lesions, prediction: Lesions, rule: LesionRule, voxel_mm3: float) -> Matching:
    """Find the partners of all reference lesions."""
    small = at_most(reference.sizes * voxel_mm3, rule.min_reference_mm3)
    counted = tuple(n for n in range(1, reference.count + 1) if not small[n - 1])
    if rule.min_iou is None:
        pairs = [(r, p) for r, p, _ in common_voxels(reference.dilated, prediction.labels)]
    else:
        pairs = _one_to_one(reference, prediction, rule.min_iou)
    partners = {n: tuple(p for r, p in pairs if r == n) for n in range(1, reference.count + 1)}
    matched = {p for _, p in pairs}
    return Matching(counted, partners, tuple(p for p in range(1, prediction.count + 1) if p not in matched))


def common_voxels(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int, int]]:
    """Pairs of labels of two arrays that share voxels, with the number of these."""
    both = (first != 0) & (second != 0)
    first_labels, second_labels = first[both].astype(np.int64), second[both].astype(np.int64)
    width = int(second_labels.max(initial=0)) + 1
    codes, counts = np.unique(first_labels * width + second_labels, return_counts=True)
    return [(*divmod(int(code), width), int(n)) for code, n in zip(codes, counts, strict=True)]


def _one_to_one(reference: Lesions, prediction: Lesions, min_iou: float) -> list[tuple[int, int]]:
    """Pairs in the order of decreasing IoU, each lesion at most once."""
    reference_sizes, prediction_sizes = reference.sizes, prediction.sizes
    scored = [
        (n / (reference_sizes[r - 1] + prediction_sizes[p - 1] - n), r, p)
        for r, p, n in common_voxels(reference.labels, prediction.labels)
    ]
    pairs: list[tuple[int, int]] = []
    for iou, r, p in sorted(scored, key=lambda pair: (-pair[0], *pair[1:])):
        if at_least(iou, min_iou) and all(r != a and p != b for a, b in pairs):
            pairs.append((r, p))
    return pairs


def _lesions(mask: np.ndarray, connectivity: Connectivity, dilation: int) -> Lesions:
    grown = binary_dilation(mask, EIGHTEEN, iterations=dilation) if dilation else mask
    dilated, count = connected_components(grown, connectivity)
    return Lesions(dilated * mask if dilation else dilated, dilated, count)


def _renumbered(lesions: Lesions, numbers: np.ndarray) -> Lesions:
    """The lesions with new numbers, (count,), 0 for those to remove."""
    used = np.unique(numbers[numbers > 0])
    table = np.concatenate([[0], np.where(numbers > 0, np.searchsorted(used, numbers) + 1, 0)])
    return Lesions(table[lesions.labels], table[lesions.dilated], len(used))


def _touching(first: np.ndarray, second: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of labels of two arrays that are in the same voxel or in neighbouring ones (18 neighbours)."""
    pairs: set[tuple[int, int]] = set()
    for shift in np.argwhere(EIGHTEEN) - 1:
        start = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, first.shape, strict=True))
        shifted = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(shift, first.shape, strict=True))
        pairs.update((a, b) for a, b, _ in common_voxels(first[start], second[shifted]))
    return pairs
