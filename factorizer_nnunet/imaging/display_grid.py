"""The grid on which pages and panels show volumes: axes to the patient's left, back and up, cubic voxels, 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.imaging.planes import LARGEST_SIDE, orientation_of


@dataclass(frozen=True)
class DisplayGrid:
    """Which voxels of an image's grid are shown."""

    axes: tuple[int, ...]  # those of the image that run left, back and up
    indices: tuple[np.ndarray, ...]  # along each of these, the nearest voxel of the image

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(len(index) for index in self.indices)

    def resample(self, values: np.ndarray) -> np.ndarray:
        """Nearest values of an image (x, y, z), as (left, back, up)."""
        return values.transpose(self.axes)[np.ix_(*self.indices)]


def display_grid(grid: Grid, largest_side: int = LARGEST_SIDE) -> DisplayGrid:
    """The finest display grid with sides of at most ``largest_side`` voxels, none smaller than the image's."""
    orientation = orientation_of(grid)
    axes = tuple(int(np.flatnonzero(orientation[:, 0] == k)[0]) for k in range(3))
    extents = [grid.size[axis] * grid.spacing[axis] for axis in axes]
    resolved = [axis for axis in axes if grid.size[axis] > 1]  # the thickness of a 2D image in its header means nothing
    finest = min(grid.spacing[axis] for axis in resolved or axes)
    longest = max(grid.size[axis] * grid.spacing[axis] for axis in resolved or axes)
    voxel_mm = max(finest, longest / largest_side)
    indices = []
    for axis, extent in zip(axes, extents, strict=True):
        count = 1 if grid.size[axis] == 1 else max(1, round(extent / voxel_mm))
        index = ((np.arange(count) + 0.5) * grid.size[axis] / count).astype(int)
        indices.append(index if orientation[axis, 1] > 0 else index[::-1])
    return DisplayGrid(axes, tuple(indices))


def to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as uint8, ``low`` to ``high`` spread over 0 to 255."""
    finite = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
    return np.rint(np.clip((finite - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)


def largest_slices(mask: np.ndarray) -> tuple[int, ...]:
    """The slice along each axis with most voxels of a mask; the middle ones of an empty mask."""
    if not mask.any():
        return tuple(n // 2 for n in mask.shape)
    return tuple(int(mask.sum(tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3))
