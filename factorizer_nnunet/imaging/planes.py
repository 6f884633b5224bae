"""Slices of a volume along the three planes of the body, as people look at them.

Axial: the front of the head on top, the patient's left on the right. Coronal: the head up, the left on the right.
Sagittal: the head up, the front on the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel
import numpy as np

from factorizer_nnunet.imaging.grid import Grid

LARGEST_SIDE = 160  # pixels of a slice, or voxels of a volume that is shown
_SAMPLES = 100_000  # values that percentiles are taken of


@dataclass(frozen=True)
class Plane:
    """Which axes of space (0 left, 1 back, 2 up) a plane is cut across and shows, and where its rows lead."""

    across: int
    rows: int
    columns: int
    rows_lead: int  # 1 along the axis, -1 against it


PLANES = {"axial": Plane(2, 1, 0, 1), "coronal": Plane(1, 2, 0, -1), "sagittal": Plane(0, 2, 1, -1)}
AXIAL = PLANES["axial"]


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


def axis_across(plane: Plane, grid: Grid) -> int:
    """The axis of voxels, 0, 1 or 2, that runs most nearly across the plane."""
    return int(np.flatnonzero(orientation_of(grid)[:, 0] == plane.across)[0])


def fullest_slice(mask: np.ndarray, plane: Plane, grid: Grid) -> int:
    """The slice along a plane with most voxels of `mask`, (x, y, z); the middle one if there are none."""
    axis = axis_across(plane, grid)
    counts = np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis}))
    return int(counts.argmax()) if counts.any() else mask.shape[axis] // 2


def slice_picture(values: np.ndarray, plane: Plane, grid: Grid, number: int, window: tuple[float, float]) -> np.ndarray:
    """Slice `number` of an image (x, y, z), (rows, columns), uint8, `window` spread over 0 to 255."""
    low, high = window
    # Twice as many pixels as wanted, averaged: finer structure does not turn into jagged edges.
    fine = np.nan_to_num(_sampled(values, plane, grid, number, 2).astype(np.float32), posinf=high, neginf=low)
    rows, columns = fine.shape[0] // 2, fine.shape[1] // 2
    fine = fine.reshape(rows, 2, columns, 2).mean(axis=(1, 3))
    return (np.clip((fine - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)


def slice_labels(labels: np.ndarray, plane: Plane, grid: Grid, number: int) -> np.ndarray:
    """Slice `number` of labels (x, y, z), (rows, columns), their values unchanged, of the size of `slice_picture`."""
    return _sampled(labels, plane, grid, number, 1)


def _sampled(values: np.ndarray, plane: Plane, grid: Grid, number: int, fineness: int) -> np.ndarray:
    """The nearest voxels at `fineness` × `fineness` places of every pixel of the picture, (rows, columns)."""
    orientation = orientation_of(grid)
    slice_axis = axis_across(plane, grid)
    row_axis, column_axis = (int(np.flatnonzero(orientation[:, 0] == k)[0]) for k in (plane.rows, plane.columns))
    axes = [axis for axis in range(3) if axis != slice_axis]
    cut = np.moveaxis(values, slice_axis, 0)[number]
    cut = cut if axes == [row_axis, column_axis] else cut.T
    extents = [grid.size[axis] * grid.spacing[axis] for axis in (row_axis, column_axis)]
    pixel_mm = max(*(extent / LARGEST_SIDE for extent in extents), min(grid.spacing[axis] for axis in axes))
    indices = []
    for axis, extent, sense in zip((row_axis, column_axis), extents, (plane.rows_lead, 1), strict=True):
        pixels = fineness * max(1, round(extent / pixel_mm))
        index = ((np.arange(pixels) + 0.5) * grid.size[axis] / pixels).astype(int)
        indices.append(index if orientation[axis, 1] * sense > 0 else index[::-1])
    return cut[np.ix_(*indices)]


def orientation_of(grid: Grid) -> np.ndarray:
    """For each axis of voxels: the axis of space (0 left, 1 back, 2 up) it runs along, each once, and the sense."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(grid.direction, (3, 3))
    return nibabel.io_orientation(affine)
