"""Volumes as pages and panels show them: axes to the patient's left, back and up, voxels of equal sides, 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.imaging.planes import LARGEST_SIDE, orientation_of


@dataclass(frozen=True)
class Frame:
    """Places of the voxels that are shown, in the voxels of a grid.

    Attributes:
        axes: of the grid, that run to the left, to the back and up.
        indices: along each of these, the nearest voxel of the grid.
        voxel_mm: their side.
    """

    axes: tuple[int, ...]
    indices: tuple[np.ndarray, ...]
    voxel_mm: float

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(len(index) for index in self.indices)

    def show(self, values: np.ndarray) -> np.ndarray:
        """Values (x, y, z) of the grid at the places shown, (left, back, up)."""
        return values.transpose(self.axes)[np.ix_(*self.indices)]


def frame_of(grid: Grid, largest_side: int = LARGEST_SIDE) -> Frame:
    """The finest frame whose sides have at most so many voxels, none smaller than the grid's."""
    orientation = orientation_of(grid)
    axes = tuple(int(np.flatnonzero(orientation[:, 0] == k)[0]) for k in range(3))
    extents = [grid.size[axis] * grid.spacing[axis] for axis in axes]
    many = [axis for axis in axes if grid.size[axis] > 1]  # a 2D image is as thick as its header says, or not
    finest = min(grid.spacing[axis] for axis in many or axes)
    longest = max(grid.size[axis] * grid.spacing[axis] for axis in many or axes)
    voxel_mm = max(finest, longest / largest_side)
    indices = []
    for axis, extent in zip(axes, extents, strict=True):
        count = 1 if grid.size[axis] == 1 else max(1, round(extent / voxel_mm))
        index = ((np.arange(count) + 0.5) * grid.size[axis] / count).astype(int)
        indices.append(index if orientation[axis, 1] > 0 else index[::-1])
    return Frame(axes, tuple(indices), voxel_mm)


def bytes_of(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as uint8, ``low`` to ``high`` spread over 0 to 255."""
    finite = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
    return np.rint(np.clip((finite - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)


def fullest(mask: np.ndarray) -> tuple[int, ...]:
    """The slice along each axis with most voxels of a mask; the middle ones of an empty mask."""
    if not mask.any():
        return tuple(n // 2 for n in mask.shape)
    return tuple(int(mask.sum(tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3))
