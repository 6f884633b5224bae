"""Checks of images and labels for which SimpleITK and nnU-Net give no error, although training on them goes wrong.

Each returns the problem as text that follows the file's name in a message, or None.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.imaging.grid import Grid, geometry_difference
from factorizer_nnunet.imaging.volume import Volume

_LEAST_DEVIATION = 1e-8  # nnU-Net divides by this where the standard deviation is smaller
_MAYBE_FAINT = 1e-4  # range of values from which on the deviation is large enough in all but absurd images


def not_finite_problem(values: np.ndarray) -> str | None:
    """NaN or infinite voxels, which SimpleITK reads as 0 or nnU-Net spreads over the entire image."""
    number = count_not_finite(values)
    return not_finite_text(number) if number else None


def not_finite_text(number: int) -> str:
    """Such as "3 voxels are NaN or infinite"."""
    return f"{count_of(number, 'voxel')} {'is' if number == 1 else 'are'} NaN or infinite"


def count_not_finite(values: np.ndarray) -> int:
    """Return how many values are NaN or infinite."""
    if values.dtype.kind != "f" or np.isfinite([values.min(), values.max()]).all():  # NaN and infinity show in these
        return 0
    return int(np.count_nonzero(~np.isfinite(values)))


def is_faint(values: np.ndarray) -> bool:
    """Whether nnU-Net's normalisation flattens an image, since it divides by no less than 1e-8; `values` are finite."""
    spread = float(values.max()) - float(values.min())
    return spread < _MAYBE_FAINT and float(np.std(values, dtype=np.float64)) < _LEAST_DEVIATION


def constant_problem(values: np.ndarray) -> str | None:
    """An image of one value, which says nothing about the patient; `values` are finite."""
    lowest = values.min()
    return f"is constant: every voxel is {lowest:g}" if lowest == values.max() else None


def negative_labels_problem(counts: Mapping[int, int]) -> str | None:
    """Negative label values among voxel counts per value."""
    negative = {value: number for value, number in counts.items() if value < 0}
    if not negative:
        return None
    return f"{sum(negative.values())} voxels have negative label values: {', '.join(map(str, negative))}"


def unexpected_labels_problem(counts: Mapping[int, int], allowed: Collection[int], owner: str) -> str | None:
    """Label values among voxel counts per value that are not `allowed`, the values of `owner`."""
    unexpected = [
        f"{value} ({count_of(count, 'voxel')})" for value, count in sorted(counts.items()) if value not in allowed
    ]
    return f"unexpected label values {', '.join(unexpected)}; {owner} has {sorted(allowed)}" if unexpected else None


def grid_problem(grid: Grid, reference: Grid, name: str, ignore_geometry: bool = False) -> str | None:
    """A grid that differs from `reference`, the one of the file `name`; only in its shape if geometry is ignored."""
    difference = geometry_difference(grid, reference)
    if difference is None:
        return None
    if grid.size != reference.size:
        return f"{difference} of {name}"
    advice = "if the same voxels are meant nevertheless, give --ignore-geometry"
    return None if ignore_geometry else f"{difference} of {name}; {advice}"


def compression_problem(volume: Volume, path: Path) -> str | None:
    """A file name that says .gz for an uncompressed file, or the other way round."""
    if volume.gzipped == path.name.lower().endswith(".gz"):
        return None
    return f"is {'compressed' if volume.gzipped else 'not compressed'} despite its name"
