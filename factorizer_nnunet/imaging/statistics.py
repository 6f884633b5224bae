"""Numbers that say how an image looks, to notice one that is unlike those that a model was trained on."""

from __future__ import annotations

import math

import numpy as np

PERCENTILES = (5, 25, 50, 75, 95)
_MOST_VOXELS = 200_000  # that percentiles are taken of


def channel_statistics(values: np.ndarray) -> dict[str, float]:
    """Describe a channel, (z, y, x).

    Returns:
        ``p5`` to ``p95``: percentiles of the intensities; ``noise``: standard deviation of white noise with the
        same second differences of neighbours, by their median; ``sharpness``: the 95th percentile of absolute first
        differences; ``flat``: the share of planes with a single value, along the axis with most of them. Large images
        are sampled.
    """
    step = max(1, math.ceil((values.size / _MOST_VOXELS) ** (1 / 3)))
    sampled = values[::step, ::step, ::step]
    result = {f"p{q}": float(p) for q, p in zip(PERCENTILES, np.percentile(sampled, PERCENTILES), strict=True)}
    lines = np.asarray(values[::step, ::step], np.float32)
    second = np.abs(np.diff(lines, 2, axis=-1))
    first = np.abs(np.diff(lines, axis=-1))
    second, first = (one[one > 0] for one in (second, first))  # without the background of one value
    result["noise"] = 1.4826 * float(np.median(second)) / math.sqrt(6) if second.size else 0.0
    result["sharpness"] = float(np.percentile(first, 95)) if first.size else 0.0
    result["flat"] = max(
        _flat_share(sampled if size > step else values, axis) for axis, size in enumerate(values.shape)
    )
    return result


def _flat_share(values: np.ndarray, axis: int) -> float:
    others = tuple(other for other in range(values.ndim) if other != axis)
    return float(np.mean(values.max(axis=others) == values.min(axis=others)))
