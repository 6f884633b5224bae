"""What a model says about the label of a case: its segmentation, and how sure it is wherever the two differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.probabilities_file import regions_of_outputs

Regions = Mapping[str, tuple[int, ...]]  # label values by name
_MOST_WRONG = 0.02  # share of voxels where probabilities of the same prediction may contradict its labels


@dataclass(frozen=True)
class Opinion:
    """Label and segmentation of a case, (x, y, z), without voxels of the ignore label.

    Attributes:
        reference: label values.
        prediction: the model's label values.
        confidence: mean over the regions that differ of the probability of the model's decision, 0 where the two
            agree; None if probabilities are not known.
        voxel_ml: volume of a voxel.
        regions: label values by name of label or region.
        is_complete: whether no voxel has the ignore label.
    """

    reference: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray | None
    voxel_ml: float
    regions: Regions
    is_complete: bool = True

    def cropped(self, box: tuple[slice, ...]) -> Opinion:
        """The opinion on a part of the image."""
        reference, prediction = (np.ascontiguousarray(one[box]) for one in (self.reference, self.prediction))
        confidence = None if self.confidence is None else np.ascontiguousarray(self.confidence[box])
        return replace(self, reference=reference, prediction=prediction, confidence=confidence)

    def probability(self, places: np.ndarray) -> float:
        """Mean confidence at flat indices where label and segmentation differ; NaN if it is not known."""
        if self.confidence is None:
            return math.nan
        values = self.confidence.ravel()[places]
        values = values[values > 0]
        return float(values.mean()) if values.size else math.nan

    def margin(self, places: np.ndarray) -> float:
        """Number of voxels at flat indices that the model contradicts: 1 where it is sure, 0 where it is undecided."""
        if self.confidence is None:
            return float(np.count_nonzero(self.reference.ravel()[places] != self.prediction.ravel()[places]))
        return float(np.clip(2 * self.confidence.ravel()[places] - 1, 0, 1).sum())

    def names(self, values: Iterable[int]) -> str:
        """Names of the smallest regions with these label values."""
        by_size = sorted(self.regions.items(), key=lambda item: len(item[1]))
        found = (next((name for name, labels in by_size if value in labels), str(value)) for value in sorted(values))
        return ", ".join(dict.fromkeys(found))


def without_ignored(reference: np.ndarray, prediction: np.ndarray, ignore: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays with background where the reference has the ignore label."""
    if ignore is None or not (ignored := reference == ignore).any():
        return reference, prediction
    return np.where(ignored, 0, reference), np.where(ignored, 0, prediction)


def confidence_of(
    reference: np.ndarray, prediction: np.ndarray, probabilities: Iterable[np.ndarray], dataset: DatasetJson
) -> np.ndarray:
    """The ``Opinion.confidence`` from the probabilities of each class or region, (x, y, z), in nnU-Net's order.

    Raises:
        ValueError: the probabilities are of another image or another prediction.
    """
    regions = list(dataset.regions.values())
    heads = regions_of_outputs(dataset)
    total, count = np.zeros(reference.shape, np.float32), np.zeros(reference.shape, np.uint8)
    wrong = positive = 0
    number = -1
    for number, probability in enumerate(probabilities):
        if probability.shape != reference.shape:
            raise ValueError(f"probabilities of shape {probability.shape}, the label has {reference.shape}")
        if number not in heads:  # background
            continue
        values = regions[heads[number]]
        decided = np.isin(prediction, values)
        differs = decided != np.isin(reference, values)
        own = probability[differs]
        total[differs] += np.where(decided[differs], own, 1 - own)
        count[differs] += 1
        wrong += int(np.count_nonzero(probability[decided] < 1 / (2 + len(regions))))
        positive += int(np.count_nonzero(decided))
    if number != max(heads):
        raise ValueError(f"probabilities of {number + 1} classes, {dataset.path.name} has {max(heads) + 1}")
    if wrong > _MOST_WRONG * positive:
        raise ValueError(f"probabilities of another prediction: they contradict {wrong} of {positive} voxels")
    return total / np.maximum(count, 1)
