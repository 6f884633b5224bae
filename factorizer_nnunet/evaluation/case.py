"""All scores of one case, from its two label arrays: each region is cut out, and each surface made, once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from factorizer_nnunet.evaluation.empty import COMPUTED, Diagonals, EmptyValues
from factorizer_nnunet.evaluation.lesions import (
    CONNECTIVITIES,
    LesionRule,
    Lesions,
    Matching,
    common_voxels,
    joined,
    match,
    predicted_lesions,
    reference_lesions,
)
from factorizer_nnunet.evaluation.metrics import NSD_PREFIX, surface_dice
from factorizer_nnunet.evaluation.schemes import Labels, Scheme
from factorizer_nnunet.evaluation.surface import (
    Surface,
    SurfaceDistances,
    bounding_box,
    distances_between,
    surface_of,
)

HD95 = 0.95
MM3_PER_ML = 1000.0
NSD = NSD_PREFIX.rstrip("_")
_EMPTY = {(False, False): "both", (False, True): "reference", (True, False): "prediction"}  # by what is not


@dataclass(frozen=True)
class RegionScores:
    """One region of one case."""

    values: dict[str, float]  # by metric
    lesions: tuple[tuple[float, bool], ...]  # counted reference lesions: volume in ml, and whether detected


class Case:
    """A reference and a prediction, cropped to what is not background in either of them."""

    def __init__(
        self,
        reference: np.ndarray,
        prediction: np.ndarray,
        spacing: tuple[float, float, float],
        scheme: Scheme,
        ignore: int | None = None,
    ) -> None:
        """Take two label arrays of one grid.

        Args:
            reference, prediction: (x, y, z) integers.
            spacing: mm per voxel along x, y, z.
            scheme: how to score.
            ignore: label of the reference whose voxels count as outside of the image.
        """
        size = np.array(reference.shape)
        self.spacing, self.scheme = spacing, scheme
        self.voxel_mm3 = math.prod(spacing)
        self.diagonals = Diagonals(float(np.linalg.norm(size * spacing)), float(np.linalg.norm(size)))
        rules = (scheme.rule, *scheme.region_rules.values())
        box = _grown(bounding_box((reference != 0) | (prediction != 0)), size, max(rule.dilation for rule in rules))
        self._labels = reference[box], prediction[box]
        self._valid = None if ignore is None else self._labels[0] != ignore
        ignored = 0 if self._valid is None else int(np.count_nonzero(~self._valid))
        self._voxels = int(size.prod()) - ignored
        self._lesions = cache(self._find_lesions)

    def score(self, labels: Labels, tolerances_mm: tuple[float, ...]) -> RegionScores:
        """All metrics of the region with these label values."""
        masks = self._mask(labels, 0), self._mask(labels, 1)
        surfaces = tuple(surface_of(mask, self.spacing) for mask in masks)
        whole = distances_between(*surfaces, self.spacing) if all(map(len, surfaces)) else None
        values = self._voxel_values(*masks) | _surface_values(whole, tolerances_mm)
        empty = _EMPTY.get((len(surfaces[0]) > 0, len(surfaces[1]) > 0))
        values = {key: self._settled(key, value, empty) for key, value in values.items()}

        rule, found = self.scheme.rule_of(labels), self._joined_lesions(labels)
        matching = match(*found, rule, self.voxel_mm3)
        distances = _LesionDistances(found, self.spacing, whole, rule.connectivity)
        lesion_values = _lesion_counts(*found, matching) | self._lesion_wise(found, matching, rule, distances)
        for key, value in lesion_values.items():
            excused = not rule.punish_false and key != "lesion_f1"  # means over no lesion, whatever is false
            nothing = not matching.counted and (excused or not matching.false)
            values[key] = self._settled(key, value, "both" if nothing else None)

        volumes_ml = found[0].sizes * self.voxel_mm3 / MM3_PER_ML
        lesions = tuple((float(volumes_ml[n - 1]), bool(matching.partners[n])) for n in matching.counted)
        return RegionScores(values, lesions)

    def _mask(self, labels: Labels, which: int) -> np.ndarray:
        array = self._labels[which]
        mask = array == labels[0]
        for label in labels[1:]:
            mask |= array == label
        return mask if self._valid is None else mask & self._valid

    def _find_lesions(self, labels: Labels) -> tuple[Lesions, Lesions]:
        rule = self.scheme.rule_of(labels)
        return (
            reference_lesions(self._mask(labels, 0), rule),
            predicted_lesions(self._mask(labels, 1), rule, self.voxel_mm3),
        )

    def _joined_lesions(self, labels: Labels) -> tuple[Lesions, Lesions]:
        reference, prediction = self._lesions(labels)
        for other in self.scheme.rule_of(labels).joined_by:
            reference, prediction = (
                joined(own, theirs) for own, theirs in zip((reference, prediction), self._lesions(other), strict=True)
            )
        return reference, prediction

    def _voxel_values(self, reference: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
        tp = int(np.count_nonzero(reference & prediction))
        fn, fp = int(np.count_nonzero(reference)) - tp, int(np.count_nonzero(prediction)) - tp
        in_reference, in_prediction = ((tp + n) * self.voxel_mm3 / MM3_PER_ML for n in (fn, fp))
        return {
            "dice": _ratio(2 * tp, 2 * tp + fp + fn),
            "iou": _ratio(tp, tp + fp + fn),
            "sensitivity": _ratio(tp, tp + fn),
            "precision": _ratio(tp, tp + fp),
            "volume_reference": in_reference,
            "volume_prediction": in_prediction,
            "volume_difference": in_prediction - in_reference,
            "volume_error": abs(in_prediction - in_reference),
            "tp": tp,
            "fp": fp,
            "fn": fn,
            "tn": self._voxels - tp - fp - fn,
        }

    def _lesion_wise(
        self, found: tuple[Lesions, Lesions], matching: Matching, rule: LesionRule, distances: _LesionDistances
    ) -> dict[str, float]:
        """Mean Dice and HD95 over counted reference lesions and, if they are punished, false ones."""
        penalty = self.diagonals.number(rule.penalty)
        false = len(matching.false) if rule.punish_false else 0
        entries = len(matching.counted) + false
        common = {(r, p): n for r, p, n in common_voxels(found[0].labels, found[1].labels)}
        sizes = found[0].sizes, found[1].sizes
        dice, hd95 = 0.0, false * penalty
        for lesion in matching.counted:
            partners = matching.partners[lesion]
            total = sizes[0][lesion - 1] + sum(sizes[1][p - 1] for p in partners)
            dice += 2 * sum(common.get((lesion, p), 0) for p in partners) / total
            hd95 += distances.hd95(lesion, partners) if partners else penalty
        return {"lesion_dice": _ratio(dice, entries), "lesion_hd95": _ratio(hd95, entries)}

    def _settled(self, metric: str, value: float, empty: str | None) -> float:
        """The value, or what the policy has instead where a mask is empty."""
        if empty is None:
            return float(value)
        family = NSD if metric.startswith(NSD) else metric
        instead = getattr(self.scheme.empty.get(family, EmptyValues()), empty)
        return float(value) if instead == COMPUTED else self.diagonals.number(instead)


class _LesionDistances:
    """Distances between single lesions: parts of the whole surfaces, if an element can only be of one lesion."""

    def __init__(
        self,
        found: tuple[Lesions, Lesions],
        spacing: tuple[float, ...],
        whole: SurfaceDistances | None,
        connectivity: int,
    ) -> None:
        self._found, self._spacing, self._whole = found, spacing, whole
        self._elements: tuple[list[np.ndarray], ...] = ()  # by lesion
        if connectivity == CONNECTIVITIES[-1] and whole is not None:
            pairs = zip(found, whole.surfaces, strict=True)
            self._elements = tuple(lesions.elements(surface.corners) for lesions, surface in pairs)

    def hd95(self, lesion: int, partners: tuple[int, ...]) -> float:
        """Between a reference lesion and all its partners together."""
        if self._elements:
            theirs = np.concatenate([self._elements[1][partner] for partner in partners])
            return self._whole.hausdorff_between(self._elements[0][lesion], theirs, HD95)
        surfaces = self._surface(0, (lesion,)), self._surface(1, partners)
        return distances_between(*surfaces, self._spacing).hausdorff(HD95)

    def _surface(self, which: int, numbers: tuple[int, ...]) -> Surface:
        return surface_of(np.isin(self._found[which].labels, numbers), self._spacing)


def score_case(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: tuple[float, float, float],
    regions: Mapping[str, Labels],
    scheme: Scheme,
    tolerances_mm: tuple[float, ...],
    ignore: int | None = None,
) -> dict[str, RegionScores]:
    """All scores of one case by region; see `Case` for the arguments."""
    case = Case(reference, prediction, spacing, scheme, ignore)
    return {name: case.score(labels, tolerances_mm) for name, labels in regions.items()}


def _surface_values(whole: SurfaceDistances | None, tolerances_mm: tuple[float, ...]) -> dict[str, float]:
    keys = ["hd95", "assd", *(surface_dice(t).key for t in tolerances_mm)]
    if whole is None:
        return dict.fromkeys(keys, math.nan)
    values = [whole.hausdorff(HD95), whole.average(), *(whole.surface_dice(t) for t in tolerances_mm)]
    return dict(zip(keys, values, strict=True))


def _lesion_counts(reference: Lesions, prediction: Lesions, matching: Matching) -> dict[str, float]:
    counted, detected, false = len(matching.counted), len(matching.detected), len(matching.false)
    return {
        "lesions_reference": counted,
        "lesions_prediction": prediction.count,
        "lesions_detected": detected,
        "lesions_missed": counted - detected,
        "lesions_false": false,
        "lesion_count_error": abs(counted - prediction.count),
        "lesion_f1": _ratio(2 * detected, detected + counted + false),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _grown(box: tuple[slice, ...] | None, size: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The box with a margin for dilation, within the image; one voxel where there is nothing."""
    if box is None:
        return (slice(0, 1),) * 3
    return tuple(slice(max(0, b.start - margin), min(int(n), b.stop + margin)) for b, n in zip(box, size, strict=True))
