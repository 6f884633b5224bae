"""Small pictures of one axial slice, for people to look at: the front of the head on top, the patient's left right."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel
import numpy as np

from factorizer_nnunet.dataset_conversion.grid import Grid

LARGEST_SIDE = 160  # pixels
_SAMPLES = 100_000  # values that percentiles are taken of


@dataclass(frozen=True)
class Thumbnail:
    """One axial slice, its pixels square in mm, at most `LARGEST_SIDE` a side."""

    image: np.ndarray  # (rows, columns), uint8: 0 and 255 at the 0.5 and 99.5 percentile
    label: np.ndarray  # (rows, columns), uint8: the release's values up to 255, 0 everywhere without a label


def intensity_range(values: np.ndarray) -> tuple[float, float]:
    """0.5 and 99.5 percentile of the finite values that are not 0, of some 100,000 evenly spread ones; (0, 0) if none.

    values: (x, y, z). Left out are the zeros around a skull-stripped brain, which would be most of them.
    """
    # An odd step, so that it does not meet the same columns again in volumes of even sides.
    sample = values.ravel(order="K")[:: max(1, values.size // _SAMPLES) | 1]
    sample = sample[(sample != 0) & np.isfinite(sample)]
    if not sample.size:
        return 0.0, 0.0
    low, high = np.percentile(sample, (0.5, 99.5))
    return float(low), float(high)


def axial_axis(grid: Grid) -> int:
    """The axis of voxels that runs most nearly from feet to head: 0, 1 or 2."""
    return int(np.flatnonzero(_orientation(grid)[:, 0] == 2)[0])


def fullest_slice(mask: np.ndarray, grid: Grid) -> int:
    """The axial slice with most voxels of `mask`, (x, y, z); the middle one if there are none."""
    axis = axial_axis(grid)
    counts = np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis}))
    return int(counts.argmax()) if counts.any() else mask.shape[axis] // 2


def axial_picture(values: np.ndarray, grid: Grid, number: int, window: tuple[float, float]) -> np.ndarray:
    """Slice `number` of an image (x, y, z), (rows, columns), uint8, `window` spread over 0 to 255."""
    low, high = window
    # Twice as many pixels as wanted, averaged: finer structure does not turn into jagged edges.
    fine = np.nan_to_num(_sampled(values, grid, number, 2).astype(np.float32), posinf=high, neginf=low)
    rows, columns = fine.shape[0] // 2, fine.shape[1] // 2
    fine = fine.reshape(rows, 2, columns, 2).mean(axis=(1, 3))
    return (np.clip((fine - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)


def axial_labels(labels: np.ndarray, grid: Grid, number: int) -> np.ndarray:
    """Slice `number` of labels (x, y, z), (rows, columns), their values unchanged, of the size of `axial_picture`."""
    return _sampled(labels, grid, number, 1)


def _sampled(values: np.ndarray, grid: Grid, number: int, fineness: int) -> np.ndarray:
    """The nearest voxels at `fineness` × `fineness` places of every pixel of the picture, (rows, columns)."""
    orientation = _orientation(grid)
    column_axis, row_axis, slice_axis = (int(np.flatnonzero(orientation[:, 0] == k)[0]) for k in range(3))
    axes = [axis for axis in range(3) if axis != slice_axis]
    plane = np.moveaxis(values, slice_axis, 0)[number]
    plane = plane if axes == [row_axis, column_axis] else plane.T
    extents = [grid.size[axis] * grid.spacing[axis] for axis in (row_axis, column_axis)]
    pixel_mm = max(*(extent / LARGEST_SIDE for extent in extents), min(grid.spacing[axis] for axis in axes))
    indices = []
    for axis, extent in zip((row_axis, column_axis), extents, strict=True):
        pixels = fineness * max(1, round(extent / pixel_mm))
        index = ((np.arange(pixels) + 0.5) * grid.size[axis] / pixels).astype(int)
        indices.append(index if orientation[axis, 1] > 0 else index[::-1])
    return plane[np.ix_(*indices)]


def _orientation(grid: Grid) -> np.ndarray:
    """For each axis of voxels: the axis of space (0 left, 1 back, 2 up) it runs along, each once, and the sense."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(grid.direction, (3, 3))
    return nibabel.io_orientation(affine)
