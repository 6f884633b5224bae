"""Label values: converted to integers, counted, replaced."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from factorizer_nnunet.imaging.checks import not_finite_problem

INTEGER_TOLERANCE = 1e-3  # scaled integers come back as 0.9999999
_MAX_LABEL = 2**31 - 1  # far above what nnU-Net can store
_MAX_TABULATED = 2**16 - 1  # larger values, always errors, are counted by sorting


def integer_labels(values: np.ndarray) -> np.ndarray:
    """Return label values as integers in the same shape: integers unchanged, floats rounded, in the smallest type.

    Floats are rounded slice by slice: a label file in double precision then needs little memory beyond its voxels.

    Raises:
        ValueError: values are not finite, too large, or differ from integers by more than `INTEGER_TOLERANCE`.
    """
    if values.dtype.kind != "f" or not values.size:
        return values.astype(np.int64) if values.dtype.kind == "f" else values
    if problem := not_finite_problem(values):
        raise ValueError(problem)
    low, high = float(values.min()), float(values.max())
    if max(-low, high) > _MAX_LABEL:
        raise ValueError(f"has label values as large as {max(-low, high):g}")
    dtype = np.result_type(np.min_scalar_type(round(low)), np.min_scalar_type(round(high)))
    result = np.empty_like(values, dtype=dtype, subok=False)  # in the same order in memory
    wrong, examples = 0, np.empty(0)
    for place in range(values.shape[-1]):
        part = values[..., place]
        rounded = np.rint(part)
        different = np.abs(part - rounded) > INTEGER_TOLERANCE
        if different.any():
            wrong += int(np.count_nonzero(different))
            examples = np.unique(np.concatenate([examples, part[different].astype(float)]))[:3]
        result[..., place] = rounded
    if wrong:
        raise ValueError(f"{wrong} voxels are not integers, e.g. {', '.join(f'{value:g}' for value in examples)}")
    return result


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
