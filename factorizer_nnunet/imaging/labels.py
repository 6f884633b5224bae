"""Label values: converted to integers, counted, replaced."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from factorizer_nnunet.imaging.checks import not_finite_problem

INTEGER_TOLERANCE = 1e-3  # scaled integers come back as 0.9999999
_MAX_TABULATED = 2**16 - 1  # larger values, always errors, are counted by sorting


def integer_labels(values: np.ndarray) -> np.ndarray:
    """Return label values as integers in the same shape: integers unchanged, floats rounded to int64.

    Raises:
        ValueError: values are not finite, or differ from integers by more than `INTEGER_TOLERANCE`.
    """
    if values.dtype.kind != "f":
        return values
    if problem := not_finite_problem(values):
        raise ValueError(problem)
    rounded = np.rint(values)
    wrong = np.abs(values - rounded) > INTEGER_TOLERANCE
    if wrong.any():
        examples = ", ".join(f"{value:g}" for value in np.unique(values[wrong])[:3])
        raise ValueError(f"{int(wrong.sum())} voxels are not integers, e.g. {examples}")
    return rounded.astype(np.int64)


def count_labels(labels: np.ndarray) -> dict[int, int]:
    """Return the number of voxels of each value, smallest value first; `labels` are integers of any shape."""
    # Most voxels are background; only the others are worth converting for the table.
    flat = labels.ravel(order="K")
    others = flat[flat != 0]
    if others.size and (others.min() < 0 or others.max() > _MAX_TABULATED):
        values, numbers = np.unique(others, return_counts=True)
        counts = {int(value): int(number) for value, number in zip(values, numbers, strict=True)}
    else:
        table = np.bincount(others.astype(np.int64))
        counts = {int(value): int(table[value]) for value in np.flatnonzero(table)}
    if others.size < flat.size:
        counts[0] = flat.size - others.size
    return dict(sorted(counts.items()))


def remapped(labels: np.ndarray, remap: Mapping[int, int]) -> np.ndarray:
    """Return `labels` with the values in `remap` replaced simultaneously; the same array if `remap` is empty."""
    result = labels.astype(np.int64) if remap else labels
    for old, new in remap.items():
        result[labels == old] = new
    return result
