"""A validation case that was not trained on: its segmentation under any rules, and the scores of that."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factorizer_nnunet.evaluation.case import score_arrays
from factorizer_nnunet.evaluation.empty import Diagonals
from factorizer_nnunet.evaluation.overlap import dice_of_regions
from factorizer_nnunet.evaluation.reading import read_declared
from factorizer_nnunet.evaluation.regions import Regions
from factorizer_nnunet.imaging.checks import grid_problem
from factorizer_nnunet.imaging.content import bounding_box
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.probabilities_file import read_probabilities, regions_of_outputs
from factorizer_nnunet.postprocessing.rules import DEFAULT_THRESHOLD, LabelSpace, Postprocessing, RegionRule
from factorizer_nnunet.tuning.candidate_rules import THRESHOLDS
from factorizer_nnunet.tuning.challenge_score import LESION_DISTANCE, metrics_of, score_of

Rules = Mapping[str, RegionRule]  # by region of dataset.json
CaseValues = dict[str, dict[str, float]]  # by scored region and metric; "score" is the mean share
SCORE = "score"
_LEAST = min(THRESHOLDS)
_CONTRADICTED = 0.001  # share of the foreground in which rounding may decide otherwise than the segmentation


@dataclass(frozen=True)
class TunedCase:
    """The files of a case, and the fold that was not trained on it."""

    name: str
    fold: str
    reference: Path
    prediction: Path
    probabilities: Path | None


@dataclass(frozen=True)
class Objective:
    """What is scored: the regions with their scheme, and what label values mean."""

    dataset: DatasetJson
    regions: Regions
    ignore_geometry: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the score."""
        return metrics_of(self.regions.scheme)


class RuleCase:
    """A case in memory, cropped to what any threshold may find and the reference.

    Raises:
        OSError: a file cannot be read, or does not fit the others; the text begins with the file.
    """

    def __init__(self, case: TunedCase, objective: Objective, thresholds: bool) -> None:
        self._objective, self._space = objective, LabelSpace(objective.dataset)
        dataset = objective.dataset
        reference = read_declared(case.reference, dataset.label_values)
        prediction = read_declared(case.prediction, dataset.label_values - {dataset.ignore_label})
        different = grid_problem(prediction.grid, reference.grid, str(case.reference), objective.ignore_geometry)
        if different is not None:
            raise OSError(f"{case.prediction}: {different}")
        self._size, self._spacing = reference.grid.size, reference.grid.spacing
        self._flat = reference.labels.ndim == 2  # a 2D image, whose faces are not surface
        values, labels = (image.labels.reshape(self._size) for image in (reference, prediction))
        outputs = _probabilities(case, self._size) if thresholds else []
        self._box = _box([values != 0, labels != 0, *_possible(outputs, self._space.has_regions)], self._size)
        self._reference, self._labels = (np.ascontiguousarray(one[self._box]) for one in (values, labels))
        self._outputs = [np.ascontiguousarray(one[self._box]) for one in outputs]
        if thresholds:
            self._check_outputs(case)
        self._memo: dict[bytes, CaseValues] = {}
        self._before = self._scored(self._labels, objective.regions.labels)

    def with_rules(self, rules: Rules) -> np.ndarray:
        """Labels in the box, postprocessed."""
        thresholds = {name: rule.threshold for name, rule in rules.items() if rule.threshold != DEFAULT_THRESHOLD}
        labels = self._decided(thresholds) if thresholds else self._labels
        return Postprocessing(rules, self._objective.dataset).cleaned(labels, self._spacing)

    def values(self, rules: Rules) -> CaseValues:
        """Scores of each scored region under these rules."""
        labels = self.with_rules(rules)
        changed = labels != self._labels
        if not changed.any():
            return self._before
        key = hashlib.blake2b(labels.tobytes()).digest()
        if key not in self._memo:
            involved = {int(value) for one in (labels, self._labels) for value in np.unique(one[changed])} - {0}
            self._memo[key] = self._before | self._scored(labels, self._concerned(involved))
        return self._memo[key]

    def score(self, rules: Rules) -> float:
        """The mean score over the regions."""
        return mean_score(self.values(rules))

    def _concerned(self, values: set[int]) -> dict[str, tuple[int, ...]]:
        """Scored regions that depend on voxels of these values."""
        scheme, found = self._objective.regions.scheme, {}
        for name, labels in self._objective.regions.labels.items():
            joined = {value for other in scheme.rule_of(labels).joined_by for value in other}
            if values & (set(labels) | joined):
                found[name] = labels
        return found

    def _scored(self, labels: np.ndarray, regions: Mapping[str, tuple[int, ...]]) -> CaseValues:
        metrics, scheme, ignore = (
            self._objective.metrics,
            self._objective.regions.scheme,
            self._objective.regions.ignore,
        )
        if metrics == ("dice",):
            found = dice_of_regions(labels, self._reference, regions, ignore)
            values = {name: {"dice": np.nan if dice is None else dice} for name, dice in found.items()}
        else:  # in full size, which some values for empty masks depend on
            arrays = self._complete(labels), self._complete(self._reference)
            scores = score_arrays(*arrays, self._spacing, regions, scheme, (), ignore)
            values = {name: scores[name].values for name in regions}
        return {
            name: {**{metric: one[metric] for metric in metrics}, SCORE: score_of(one, metrics, self._worst_mm())}
            for name, one in values.items()
        }

    def _worst_mm(self) -> float:
        """The value of a distance where a lesion, or the region, is missed."""
        scheme = self._objective.regions.scheme
        missed = scheme.rule.penalty if LESION_DISTANCE in self._objective.metrics else scheme.empty["hd95"].prediction
        size, spacing = (np.array(one[:2] if self._flat else one) for one in (self._size, self._spacing))
        mm = float(np.linalg.norm(size * spacing))
        worst = Diagonals(mm, float(np.linalg.norm(size))).number(missed)
        return mm if math.isnan(worst) else worst

    def _complete(self, labels: np.ndarray) -> np.ndarray:
        """Labels of the image, in its own number of axes."""
        result = np.zeros(self._size, labels.dtype)
        result[self._box] = labels
        return result[..., 0] if self._flat else result

    def _decided(self, thresholds: Mapping[str, float]) -> np.ndarray:
        """Labels from the probabilities, as ``Postprocessing.offsets`` decides them from logits."""
        names, places = list(self._space.regions), regions_of_outputs(self._objective.dataset)
        result = np.zeros_like(self._labels)
        if self._space.has_regions:
            for number, place in places.items():
                mask = self._outputs[number] > thresholds.get(names[place], DEFAULT_THRESHOLD)
                result[mask] = self._space.written[names[place]]
            return result
        best = self._outputs[0]
        for number, place in sorted(places.items()):
            threshold = thresholds.get(names[place], DEFAULT_THRESHOLD)
            weighted = self._outputs[number] * np.float32((1 - threshold) / threshold)
            larger = weighted > best
            result[larger] = self._space.written[names[place]]
            best = np.where(larger, weighted, best)
        return result

    def _check_outputs(self, case: TunedCase) -> None:
        expected = max(regions_of_outputs(self._objective.dataset)) + 1
        if len(self._outputs) != expected:
            raise OSError(
                f"{case.probabilities}: probabilities of {len(self._outputs)} classes; "
                f"{self._objective.dataset.path.name} has {expected}"
            )
        wrong = int(np.count_nonzero(self._decided({}) != self._labels))
        if wrong > 5 + _CONTRADICTED * np.count_nonzero(self._labels):
            raise OSError(
                f"{case.probabilities}: contradicts {case.prediction.name} in {wrong} voxels: one of them was changed. "
                "Validate the fold again"
            )


def mean_score(values: CaseValues) -> float:
    """The mean score over the regions of a case."""
    return float(np.mean([one[SCORE] for one in values.values()]))


def _probabilities(case: TunedCase, size: Sequence[int]) -> list[np.ndarray]:
    assert case.probabilities is not None  # else no thresholds are tuned
    outputs = []
    for one in read_probabilities(case.probabilities):
        if one.shape != tuple(size):
            raise OSError(f"{case.probabilities}: has shape {one.shape}, the label {tuple(size)}")
        outputs.append(one)
    return outputs


def _possible(outputs: Sequence[np.ndarray], has_regions: bool) -> list[np.ndarray]:
    """Where the lowest threshold t may find a region: p (1 - t) / t > background b and p <= 1 - b, so b < 1 - t."""
    if not outputs:
        return []
    return [one > _LEAST for one in outputs] if has_regions else [outputs[0] <= 1 - _LEAST]


def _box(masks: Sequence[np.ndarray], size: Sequence[int]) -> tuple[slice, ...]:
    """The box of all masks and one voxel more, so that only an image's own axes of one voxel remain so thin."""
    boxes = [box for box in map(bounding_box, masks) if box is not None]
    if not boxes:
        return tuple(slice(0, min(2, n)) for n in size)
    return tuple(
        slice(max(0, min(part.start for part in parts) - 1), min(n, max(part.stop for part in parts) + 1))
        for parts, n in zip(zip(*boxes, strict=True), size, strict=True)
    )
