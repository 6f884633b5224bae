"""All scores of one case, from its two label arrays. Each region is extracted, and each surface built, only once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from factorizer_nnunet.evaluation.empty import COMPUTED, Diagonals, EmptyValues
from factorizer_nnunet.evaluation.lesions import (
    ALL_NEIGHBOURS,
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
from factorizer_nnunet.evaluation.overlap import dice, iou, ratio
from factorizer_nnunet.evaluation.schemes import NONE, Labels, ScoringScheme
from factorizer_nnunet.evaluation.surface import Surface, SurfaceDistances, distances_between, surface_of
from factorizer_nnunet.imaging.content import bounding_box

TOLERANCES_MM = (1.0, 2.0)  # of surface Dice
HD95 = 0.95
MM3_PER_ML = 1000.0
NSD = NSD_PREFIX.rstrip("_")


@dataclass(frozen=True)
class RegionScores:
    """Scores of one region of one case."""

    values: dict[str, float]  # by metric
    lesions: tuple[tuple[float, bool], ...]  # counted reference lesions: volume in ml, and whether detected


CaseScores = dict[str, RegionScores]  # by region


def score_arrays(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: tuple[float, ...],
    regions: Mapping[str, Labels],
    scheme: ScoringScheme = NONE,
    tolerances_mm: tuple[float, ...] = TOLERANCES_MM,
    ignore: int | None = None,
) -> CaseScores:
    """Score one case.

    Args:
        prediction, reference: integer labels on the same grid, (x, y, z), or (x, y) of a 2D image.
        spacing_mm: voxel size along x, y, z; the thickness of a 2D image only matters for its volume.
        regions: label values by region name.
        scheme: how to score.
        tolerances_mm: of surface Dice.
        ignore: label of the reference whose voxels are treated as outside the image.

    Raises:
        ValueError: the arrays have different shapes, or are neither 2D nor 3D.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction of shape {prediction.shape} and reference of {reference.shape} differ")
    if reference.ndim not in (2, 3):
        raise ValueError(f"arrays of shape {reference.shape} are neither 2D nor 3D")
    case = _Case(prediction, reference, spacing_mm, scheme, ignore)
    return {name: case.score(labels, tolerances_mm) for name, labels in regions.items()}


class _Case:
    """A prediction and a reference, cropped to the voxels that are not background in at least one of them."""

    def __init__(
        self,
        prediction: np.ndarray,
        reference: np.ndarray,
        spacing_mm: tuple[float, ...],
        scheme: ScoringScheme,
        ignore: int | None,
    ) -> None:
        self._flat = reference.ndim == 2
        if self._flat:
            prediction, reference, spacing_mm = prediction[..., None], reference[..., None], (*spacing_mm, 1.0)[:3]
        size = np.array(reference.shape)
        self._spacing, self._scheme = spacing_mm, scheme
        self._voxel_mm3 = math.prod(spacing_mm)
        sides = size[:2] if self._flat else size
        diagonal_mm = float(np.linalg.norm(sides * spacing_mm[: len(sides)]))
        self._diagonals = Diagonals(diagonal_mm, float(np.linalg.norm(sides)))
        rules = (scheme.rule, *scheme.region_rules.values())
        box = _expanded(bounding_box((reference != 0) | (prediction != 0)), size, max(rule.dilation for rule in rules))
        self._reference, self._prediction = reference[box], prediction[box]
        self._valid = None if ignore is None else self._reference != ignore
        ignored = 0 if self._valid is None else int(np.count_nonzero(~self._valid))
        self._voxels = int(size.prod()) - ignored
        self._lesions = cache(self._find_lesions)

    def score(self, labels: Labels, tolerances_mm: tuple[float, ...]) -> RegionScores:
        """All metrics of the region with these label values."""
        reference, prediction = self._masks(labels)
        surfaces = self._surface(reference), self._surface(prediction)
        distances = distances_between(*surfaces, self._spacing) if all(map(len, surfaces)) else None
        values = self._voxel_values(reference, prediction) | _surface_values(distances, tolerances_mm)
        if distances is None:
            empty = "prediction" if len(surfaces[0]) else "reference" if len(surfaces[1]) else "both"
            values = {key: self._value_if_empty(key, value, empty) for key, value in values.items()}

        rule, found = self._scheme.rule_of(labels), self._joined_lesions(labels)
        matching = match(*found, rule, self._voxel_mm3)
        lesion_distances = _LesionDistances(found, self._spacing, distances, rule.connectivity, self._flat)
        lesion_values = _lesion_counts(*found, matching) | self._lesion_wise(found, matching, rule, lesion_distances)
        for key, value in lesion_values.items():
            excused = not rule.punish_false and key != "lesion_f1"  # the mean is over no lesion, false ones or not
            none = not matching.counted and (excused or not matching.false)
            values[key] = self._value_if_empty(key, value, "both") if none else float(value)

        volumes_ml = found[0].sizes * self._voxel_mm3 / MM3_PER_ML
        lesions = tuple((float(volumes_ml[n - 1]), bool(matching.partners[n])) for n in matching.counted)
        return RegionScores(values, lesions)

    def _surface(self, mask: np.ndarray) -> Surface:
        return surface_of(mask, self._spacing, self._flat)

    def _masks(self, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
        """The region in the reference and in the prediction."""
        return self._mask(self._reference, labels), self._mask(self._prediction, labels)

    def _mask(self, array: np.ndarray, labels: Labels) -> np.ndarray:
        mask: np.ndarray = array == labels[0]
        for label in labels[1:]:
            mask |= array == label
        return mask if self._valid is None else mask & self._valid

    def _find_lesions(self, labels: Labels) -> tuple[Lesions, Lesions]:
        rule, (reference, prediction) = self._scheme.rule_of(labels), self._masks(labels)
        return reference_lesions(reference, rule), predicted_lesions(prediction, rule, self._voxel_mm3)

    def _joined_lesions(self, labels: Labels) -> tuple[Lesions, Lesions]:
        reference, prediction = self._lesions(labels)
        for other in self._scheme.rule_of(labels).joined_by:
            other_reference, other_prediction = self._lesions(other)
            reference, prediction = joined(reference, other_reference), joined(prediction, other_prediction)
        return reference, prediction

    def _voxel_values(self, reference: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
        tp = int(np.count_nonzero(reference & prediction))
        in_reference, in_prediction = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
        reference_ml, prediction_ml = (n * self._voxel_mm3 / MM3_PER_ML for n in (in_reference, in_prediction))
        return {
            "dice": dice(tp, in_reference, in_prediction),
            "iou": iou(tp, in_reference, in_prediction),
            "sensitivity": ratio(tp, in_reference),
            "precision": ratio(tp, in_prediction),
            "volume_reference": reference_ml,
            "volume_prediction": prediction_ml,
            "volume_difference": prediction_ml - reference_ml,
            "volume_error": abs(prediction_ml - reference_ml),
            "tp": float(tp),
            "fp": float(in_prediction - tp),
            "fn": float(in_reference - tp),
            "tn": float(self._voxels - in_reference - in_prediction + tp),
        }

    def _lesion_wise(
        self, found: tuple[Lesions, Lesions], matching: Matching, rule: LesionRule, distances: _LesionDistances
    ) -> dict[str, float]:
        """Mean Dice and HD95 over the counted reference lesions and, if the rule punishes them, false lesions."""
        penalty = self._diagonals.number(rule.penalty)
        false = len(matching.false) if rule.punish_false else 0
        count = len(matching.counted) + false
        common = {(r, p): n for r, p, n in common_voxels(found[0].labels, found[1].labels)}
        reference_sizes, prediction_sizes = found[0].sizes, found[1].sizes
        total_dice, total_hd95 = 0.0, false * penalty
        for lesion in matching.counted:
            partners = matching.partners[lesion]
            size = int(sum(prediction_sizes[p - 1] for p in partners))
            in_both = sum(common.get((lesion, p), 0) for p in partners)
            total_dice += dice(in_both, int(reference_sizes[lesion - 1]), size)
            total_hd95 += distances.hd95(lesion, partners) if partners else penalty
        return {"lesion_dice": ratio(total_dice, count), "lesion_hd95": ratio(total_hd95, count)}

    def _value_if_empty(self, metric: str, value: float, empty: str) -> float:
        """The scheme's value of a metric where `empty` is: "both", "reference" or "prediction"."""
        family = NSD if metric.startswith(NSD) else metric
        replacement = getattr(self._scheme.empty.get(family, EmptyValues()), empty)
        return float(value) if replacement == COMPUTED else self._diagonals.number(replacement)


class _LesionDistances:
    """Distances between single lesions: parts of the complete surfaces if no element can be of two lesions."""

    def __init__(
        self,
        found: tuple[Lesions, Lesions],
        spacing_mm: tuple[float, ...],
        distances: SurfaceDistances | None,
        connectivity: int,
        flat: bool,
    ) -> None:
        self._found, self._spacing, self._flat = found, spacing_mm, flat
        self._distances = distances if connectivity == ALL_NEIGHBOURS else None
        self._elements: list[list[np.ndarray]] = []  # of each surface, by lesion
        if self._distances is not None:
            pairs = zip(found, self._distances.surfaces, strict=True)
            self._elements = [lesions.elements(surface.corners) for lesions, surface in pairs]

    def hd95(self, lesion: int, partners: tuple[int, ...]) -> float:
        """HD95 in mm between a reference lesion and all its partners together."""
        if self._distances is None:
            surfaces = self._surface(0, (lesion,)), self._surface(1, partners)
            return distances_between(*surfaces, self._spacing).hausdorff(HD95)
        predicted = np.concatenate([self._elements[1][partner] for partner in partners])
        return self._distances.hausdorff_between(self._elements[0][lesion], predicted, HD95)

    def _surface(self, which: int, numbers: tuple[int, ...]) -> Surface:
        return surface_of(np.isin(self._found[which].labels, numbers), self._spacing, self._flat)


def _surface_values(distances: SurfaceDistances | None, tolerances_mm: tuple[float, ...]) -> dict[str, float]:
    keys = ["hd95", "assd", *(surface_dice(t).key for t in tolerances_mm)]
    if distances is None:
        return dict.fromkeys(keys, math.nan)
    values = [distances.hausdorff(HD95), distances.average(), *(distances.surface_dice(t) for t in tolerances_mm)]
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
        "lesion_f1": ratio(2 * detected, detected + counted + false),
    }


def _expanded(box: tuple[slice, ...] | None, size: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The box with a margin for dilation, within the image; a box of one voxel if there is none."""
    if box is None:
        return (slice(0, 1),) * 3
    return tuple(slice(max(0, b.start - margin), min(int(n), b.stop + margin)) for b, n in zip(box, size, strict=True))
