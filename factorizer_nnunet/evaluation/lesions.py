"""Lesions of a mask, and which of the reference's the prediction has found.

A lesion is a connected component. With dilation, components whose dilated forms touch are one lesion, and a predicted
lesion belongs to every reference lesion whose dilated form it reaches (BraTS 2023, Saluja et al.).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cc3d
import numpy as np
from scipy.ndimage import binary_dilation, generate_binary_structure

from factorizer_nnunet.evaluation.empty import DIAGONAL, Value

CONNECTIVITIES = (6, 18, 26)
EIGHTEEN = generate_binary_structure(3, 2)


@dataclass(frozen=True)
class LesionRule:
    """What is a lesion, which of them count, and when one is found."""

    connectivity: int = 26  # 6, 18 or 26 neighbours
    dilation: int = 0  # rounds over 18 neighbours
    dilate_predictions: bool = False  # predicted components whose dilated forms touch are one lesion, too
    min_reference_mm3: float = 0.0  # reference lesions up to this volume are not counted, found or not
    min_prediction_mm3: float = 0.0  # predicted lesions up to this volume are dropped before anything else
    min_iou: float | None = None  # None: one common voxel is enough, and lesions may share partners; else one to one
    punish_false: bool = True  # false lesions enter lesion-wise means, with Dice 0 and the penalty
    penalty: Value = DIAGONAL  # lesion-wise HD95 of a missed or false lesion, mm
    joined_by: tuple[tuple[int, ...], ...] = ()  # regions, as label values, one lesion of which joins what it touches


@dataclass(frozen=True)
class Lesions:
    """The lesions of one mask."""

    labels: np.ndarray  # (x, y, z), 1 to `count` where a lesion is
    reach: np.ndarray  # the same for their dilated forms
    count: int

    def elements(self, corners: np.ndarray) -> list[np.ndarray]:
        """Places in `corners` at which each lesion is around a corner between voxels, 0 (no lesion) to `count`.

        corners: (corners, 3) integers, in voxels from a corner of the image; the lesions are of 26 neighbours, so
            that the voxels around a corner are of one lesion.
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
    """Which reference lesions count, which predicted lesions belong to them, and which to none; numbers from 1."""

    counted: tuple[int, ...]
    partners: dict[int, tuple[int, ...]]  # of every reference lesion, counted or not
    false: tuple[int, ...]

    @property
    def detected(self) -> tuple[int, ...]:
        """Counted reference lesions that have a partner."""
        return tuple(lesion for lesion in self.counted if self.partners[lesion])


def reference_lesions(mask: np.ndarray, rule: LesionRule) -> Lesions:
    """The lesions of a reference, (x, y, z) booleans, small ones included."""
    return _lesions(mask, rule.connectivity, rule.dilation)


def predicted_lesions(mask: np.ndarray, rule: LesionRule, voxel_mm3: float) -> Lesions:
    """The lesions of a prediction without those too small."""
    found = _lesions(mask, rule.connectivity, rule.dilation if rule.dilate_predictions else 0)
    if not rule.min_prediction_mm3:
        return found
    kept = found.sizes * voxel_mm3 > rule.min_prediction_mm3
    return _renumbered(found, np.where(kept, np.arange(1, found.count + 1), 0))


def joined(lesions: Lesions, other: Lesions) -> Lesions:
    """Lesions that touch (18 neighbours) the same lesion of another region become one.

    A lesion that touches several goes with the first of them, as in the code of BraTS 2024.
    """
    first: dict[int, int] = {}
    for lesion, touched in sorted(_touching(lesions.labels, other.labels)):
        first.setdefault(lesion, touched)
    groups = [(1, first[n]) if n in first else (0, n) for n in range(1, lesions.count + 1)]
    numbers = {group: n for n, group in enumerate(sorted(set(groups)), 1)}
    return _renumbered(lesions, np.array([numbers[group] for group in groups], int))


def match(reference: Lesions, prediction: Lesions, rule: LesionRule, voxel_mm3: float) -> Matching:
    """Find the partners of all lesions by `rule`."""
    volumes = reference.sizes * voxel_mm3
    counted = tuple(n for n in range(1, reference.count + 1) if volumes[n - 1] > rule.min_reference_mm3)
    if rule.min_iou is None:
        pairs = [(r, p) for r, p, _ in common_voxels(reference.reach, prediction.labels)]
    else:
        pairs = _one_to_one(reference, prediction, rule.min_iou)
    partners = {n: tuple(p for r, p in pairs if r == n) for n in range(1, reference.count + 1)}
    matched = {p for _, p in pairs}
    return Matching(counted, partners, tuple(p for p in range(1, prediction.count + 1) if p not in matched))


def common_voxels(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int, int]]:
    """Pairs of labels of two arrays that share voxels, and how many."""
    both = (first != 0) & (second != 0)
    here, there = first[both].astype(np.int64), second[both].astype(np.int64)
    width = int(there.max(initial=0)) + 1
    codes, counts = np.unique(here * width + there, return_counts=True)
    return [(*divmod(int(code), width), int(n)) for code, n in zip(codes, counts, strict=True)]


def _one_to_one(reference: Lesions, prediction: Lesions, min_iou: float) -> list[tuple[int, int]]:
    """Pairs by falling IoU, each lesion once."""
    reference_sizes, prediction_sizes = reference.sizes, prediction.sizes
    scored = [
        (n / (reference_sizes[r - 1] + prediction_sizes[p - 1] - n), r, p)
        for r, p, n in common_voxels(reference.labels, prediction.labels)
    ]
    pairs: list[tuple[int, int]] = []
    for iou, r, p in sorted(scored, key=lambda pair: (-pair[0], *pair[1:])):
        if iou >= min_iou and all(r != a and p != b for a, b in pairs):
            pairs.append((r, p))
    return pairs


def _lesions(mask: np.ndarray, connectivity: int, dilation: int) -> Lesions:
    grown = binary_dilation(mask, EIGHTEEN, iterations=dilation) if dilation else mask
    reach, count = cc3d.connected_components(grown, connectivity=connectivity, return_N=True)
    return Lesions(reach * mask if dilation else reach, reach, count)


def _renumbered(lesions: Lesions, numbers: Sequence[int]) -> Lesions:
    """The lesions with new numbers, 0 for those to be dropped."""
    used = np.unique([n for n in numbers if n])
    table = np.concatenate([[0], np.where(np.array(numbers, int) > 0, np.searchsorted(used, numbers) + 1, 0)])
    return Lesions(table[lesions.labels], table[lesions.reach], len(used))


def _touching(first: np.ndarray, second: np.ndarray) -> set[tuple[int, int]]:
    pairs: set[tuple[int, int]] = set()
    for shift in np.argwhere(EIGHTEEN) - 1:
        here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, first.shape, strict=True))
        there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(shift, first.shape, strict=True))
        pairs.update((a, b) for a, b, _ in common_voxels(first[here], second[there]))
    return pairs
