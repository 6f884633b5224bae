"""Slices of a volume in the three anatomical planes, oriented as usual.

Axial: anterior at the top, the patient's left on the right. Coronal: superior at the top, the left on the right.
Sagittal: superior at the top, anterior on the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel
import numpy as np

from factorizer_nnunet.imaging.grid import Grid

_NAMES = ("sagittal", "coronal", "axial")  # by the axis of space across the plane
_ENDS = (("R", "L"), ("A", "P"), ("I", "S"))  # where each axis of space begins and ends
LARGEST_SIDE = 160  # pixels of a picture of a slice, or voxels of a displayed volume
_SAMPLES = 100_000  # values from which percentiles are computed


@dataclass(frozen=True)
class Plane:
    """An anatomical plane, by axes of space (0 left, 1 posterior, 2 superior)."""

    across: int  # the axis perpendicular to the plane
    rows: int  # the axis from row to row
    columns: int
    rows_lead: int  # 1 if rows follow their axis, -1 if they run against it

    @property
    def name(self) -> str:
        """Such as "axial"."""
        return _NAMES[self.across]

    @property
    def sides(self) -> tuple[str, str, str, str]:
        """The side letters of a picture: left, right, top, bottom; the axial plane has R on the left."""
        (left, right), (top, bottom) = _ENDS[self.columns], _ENDS[self.rows]
        return (left, right, top, bottom) if self.rows_lead > 0 else (left, right, bottom, top)


AXIAL = Plane(2, 1, 0, 1)
PLANES = {plane.name: plane for plane in (AXIAL, Plane(1, 2, 0, -1), Plane(0, 2, 1, -1))}


def intensity_range(values: np.ndarray) -> tuple[float, float]:
    """The 0.5 and 99.5 percentiles of about 100,000 evenly spaced values; (0, 0) if none is finite and not 0.

    values: (x, y, z). Zeros are left out: around a skull-stripped brain, they would be most of the values.
    """
    # An odd step, so that it does not always sample the same columns of volumes with even sides.
    sample = values.ravel(order="K")[:: max(1, values.size // _SAMPLES) | 1]
    sample = sample[(sample != 0) & np.isfinite(sample)]
    if not sample.size:
        return 0.0, 0.0
    low, high = np.percentile(sample, (0.5, 99.5))
    return float(low), float(high)


def axis_across(plane: Plane, grid: Grid) -> int:
    """The voxel axis (0, 1 or 2) that is most nearly perpendicular to the plane."""
    return int(np.flatnonzero(orientation_of(grid)[:, 0] == plane.across)[0])


def planes_of(grid: Grid) -> tuple[Plane, ...]:
    """The planes in which an image has slices worth showing: a 2D image has a single plane."""
    return tuple(plane for plane in PLANES.values() if min(grid.size) > 1 or grid.size[axis_across(plane, grid)] == 1)


def slice_position(plane: Plane, grid: Grid, number: float) -> str:
    """Where a slice lies, such as "S 34.2 mm": the coordinate of its centre along the axis across the plane."""
    index = [(n - 1) / 2 for n in grid.size]
    index[axis_across(plane, grid)] = number
    steps = np.reshape(grid.direction, (3, 3)) * grid.spacing
    mm = round(float((steps @ index + grid.origin)[plane.across]), 1)
    return f"{_ENDS[plane.across][mm >= 0]} {abs(mm):g} mm"


def extent_mm(plane: Plane, grid: Grid) -> tuple[float, float]:
    """Height and width of a picture of a slice."""
    orientation = orientation_of(grid)
    axes = (int(np.flatnonzero(orientation[:, 0] == k)[0]) for k in (plane.rows, plane.columns))
    height, width = (grid.size[axis] * grid.spacing[axis] for axis in axes)
    return height, width


def fullest_slice(mask: np.ndarray, plane: Plane, grid: Grid) -> int:
    """The slice in a plane with the most voxels of `mask`, (x, y, z); the middle slice if it is empty."""
    axis = axis_across(plane, grid)
    counts = np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis}))
    return int(counts.argmax()) if counts.any() else mask.shape[axis] // 2


def slice_picture(values: np.ndarray, plane: Plane, grid: Grid, number: int, window: tuple[float, float]) -> np.ndarray:
    """Slice `number` of an image (x, y, z) as uint8 (rows, columns); `window` is mapped to 0 to 255."""
    low, high = window
    # Twice the resolution, averaged, so that fine structures have smooth edges.
    fine = np.nan_to_num(_sampled(values, plane, grid, number, 2).astype(np.float32), posinf=high, neginf=low)
    rows, columns = fine.shape[0] // 2, fine.shape[1] // 2
    fine = fine.reshape(rows, 2, columns, 2).mean(axis=(1, 3))
    return (np.clip((fine - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)


def slice_labels(labels: np.ndarray, plane: Plane, grid: Grid, number: int) -> np.ndarray:
    """Slice `number` of labels (x, y, z), as large as that of `slice_picture`, with unchanged values."""
    return _sampled(labels, plane, grid, number, 1)


def _sampled(values: np.ndarray, plane: Plane, grid: Grid, number: int, fineness: int) -> np.ndarray:
    """The nearest voxels at `fineness` × `fineness` positions in every pixel of the picture, (rows, columns)."""
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
    """For each voxel axis: its axis of space (0 left, 1 posterior, 2 superior), each used once, and direction (±1)."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(grid.direction, (3, 3))
    return nibabel.io_orientation(affine)
