"""How well a map separates each class from the rest: AUC and correlation, from one histogram per map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

BINS = 4096  # of equal width; scores of a map with at most this many levels are exact


@dataclass(frozen=True)
class Separation:
    """How a map agrees with a mask.

    The AUC is the probability that a voxel of the mask has a higher value than one outside it, ties counting half.
    """

    auc: float | None  # None if the mask is empty or full
    correlation: float | None  # Pearson's; None also if the map is constant

    @property
    def strength(self) -> float | None:
        """Distance of the AUC from 0.5: a map that avoids the class is as informative as one that marks it."""
        return None if self.auc is None else abs(self.auc - 0.5)

    @property
    def avoids(self) -> bool:
        """Whether the map is low inside the class."""
        return self.auc is not None and self.auc < 0.5


def bin_numbers(values: np.ndarray) -> np.ndarray:
    """The bin of each value, uint16; bin 0 starts at 0 or at the smallest value below it, the last is the largest's."""
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    scale = (BINS - 1) / (high - low) if high > low else 0.0
    scaled = (values - np.float32(low)) * np.float32(scale)
    return np.rint(scaled, out=scaled).astype(np.uint16)


def label_histograms(binned: np.ndarray, labels: np.ndarray, ignored: int | None = None) -> np.ndarray:
    """Count the voxels of each label value but ``ignored`` in each bin, (labels, bins); both arrays of one shape."""
    highest = int(labels.max(initial=0))
    # Both in the same order, whatever their memory layout; F is that of nnU-Net's arrays with x first.
    joint = labels.ravel(order="F").astype(np.int32) * BINS + binned.ravel(order="F")
    # torch counts 32-bit integers without a copy and lets other threads work.
    counts = torch.bincount(torch.from_numpy(joint), minlength=(highest + 1) * BINS).numpy()
    histograms = counts.reshape(highest + 1, BINS)
    if ignored is not None:
        histograms[ignored : ignored + 1] = 0
    return histograms


def separations(histograms: np.ndarray, classes: Mapping[str, Sequence[int]]) -> dict[str, Separation]:
    """How the map agrees with each class, given as its label values."""
    result = {}
    for name, values in classes.items():
        inside = histograms[[value for value in values if value < len(histograms)]].sum(0)
        result[name] = separation(inside, histograms.sum(0) - inside)
    return result


def separation(inside: np.ndarray, outside: np.ndarray) -> Separation:
    """How a map agrees with a mask, by the histograms (bins,) of the map inside and outside the mask."""
    inside, outside = inside.astype(np.float64), outside.astype(np.float64)
    n, m = inside.sum(), outside.sum()
    if not n or not m:
        return Separation(None, None)
    below = np.cumsum(outside) - outside
    auc = float((inside * (below + outside / 2)).sum() / (n * m))
    bins = np.arange(len(inside))
    total = inside + outside
    mean = (total * bins).sum() / (n + m)
    variance = (total * (bins - mean) ** 2).sum() / (n + m)
    if variance == 0:
        return Separation(auc, None)
    share = n / (n + m)
    covariance = (inside * (bins - mean)).sum() / (n + m)
    return Separation(auc, float(covariance / np.sqrt(variance * share * (1 - share))))


def best_first(scores: Sequence[float | None]) -> list[int]:
    """Indices of the scores, the highest first, missing ones last."""
    return sorted(range(len(scores)), key=lambda i: (scores[i] is None, -(scores[i] or 0.0), i))
