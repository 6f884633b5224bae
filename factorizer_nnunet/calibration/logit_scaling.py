"""What calibrates the probabilities of a label or region, and how well calibrated they are, from counts of voxels.

A probability p becomes sigmoid(logit(p) / T + b) (Platt, Probabilistic outputs for support vector machines, 1999; for
networks and with T alone Guo et al., On calibration of modern neural networks, 2017). Only voxels with a probability of
at least 1 % count: the background, which is most of an image, is right anyway and would make every number look good.
The expected calibration error (ECE) is the mean distance of probability and frequency in 15 bins of equal width,
weighted by their voxels; Brier's score is the mean squared distance of probability and truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_PROBABILITY = 0.01
NUM_BINS = 15
_LARGEST, _STEP = 15.0, 0.1  # logits beyond are counted as this large
NUM_LOGITS = round(2 * _LARGEST / _STEP)
CENTRES = -_LARGEST + _STEP * (np.arange(NUM_LOGITS) + 0.5)


@dataclass(frozen=True)
class LogitScaling:
    """What calibrates the probabilities of a label or region; as it is by default, nothing changes.

    Attributes:
        temperature: by which logits are divided.
        offset: that is then added.
    """

    temperature: float = 1.0
    offset: float = 0.0

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, of the shape and type of the network's logits."""
        return 1 / (1 + np.exp(-(logits / self.temperature + self.offset)))


@dataclass(frozen=True)
class Reliability:
    """How probabilities and frequencies compare.

    Attributes:
        counts: voxels in each bin.
        probabilities: their mean probability; NaN in empty bins.
        frequencies: the share of them in the region, likewise.
        brier: Brier's score.
    """

    counts: tuple[float, ...]
    probabilities: tuple[float, ...]
    frequencies: tuple[float, ...]
    brier: float

    @property
    def ece(self) -> float:
        """The expected calibration error; NaN without voxels."""
        total = sum(self.counts)
        bins = zip(self.counts, self.probabilities, self.frequencies, strict=True)
        away = sum(count * abs(p - share) for count, p, share in bins if count)
        return away / total if total else math.nan


def logit_counts(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count voxels by their logits.

    Args:
        probabilities: of a region, in any shape.
        truth: whether each voxel is in the region.

    Returns:
        (2, NUM_LOGITS), int64: voxels outside of the region, and in it.
    """
    counted = probabilities >= LEAST_PROBABILITY
    p = np.clip(probabilities[counted], 1e-7, 1 - 1e-7).astype(np.float64)
    logits = np.log(p) - np.log1p(-p)
    place = np.clip(((logits + _LARGEST) / _STEP).astype(np.int64), 0, NUM_LOGITS - 1)
    inside = truth[counted]
    return np.stack([np.bincount(place[inside == value], minlength=NUM_LOGITS) for value in (False, True)])


def reliability(parts: Sequence[tuple[np.ndarray, LogitScaling]]) -> Reliability:
    """Compare probabilities and frequencies.

    Args:
        parts: counts from ``logit_counts``, each with what calibrates its probabilities.
    """
    sums = np.zeros((3, NUM_BINS))  # voxels, their probabilities, those in the region
    squares = 0.0
    for counts, scaling in parts:
        p = scaling.probabilities(CENTRES)
        place = np.minimum((p * NUM_BINS).astype(np.int64), NUM_BINS - 1)
        total = counts.sum(axis=0)
        for row, values in enumerate((total, total * p, counts[1])):
            sums[row] += np.bincount(place, weights=values, minlength=NUM_BINS)
        squares += float(counts[0] @ p**2 + counts[1] @ (1 - p) ** 2)
    with np.errstate(invalid="ignore"):
        means = sums[1:] / sums[0]
    voxels = float(sums[0].sum())
    return Reliability(
        tuple(map(float, sums[0])),
        tuple(map(float, means[0])),
        tuple(map(float, means[1])),
        squares / voxels if voxels else math.nan,
    )
