"""Linear interpolation between grids whose axes are parallel, as one small matrix per axis.

Positions count voxels from 0 at the centre of the first one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def weights_at(positions: np.ndarray, size: int) -> np.ndarray:
    """Rows that interpolate ``size`` voxels at each position, (positions, size), float32; constant beyond the ends."""
    clipped = np.clip(positions, 0, size - 1)
    lower = np.minimum(np.floor(clipped).astype(int), max(size - 2, 0))
    upper = np.minimum(lower + 1, size - 1)
    share = (clipped - lower).astype(np.float32)
    matrix = np.zeros((len(positions), size), np.float32)
    rows = np.arange(len(positions))
    matrix[rows, lower] = 1 - share
    matrix[rows, upper] += share
    return matrix


def coarse_position(fine: np.ndarray, stride: float) -> np.ndarray:
    """Where voxels of a grid lie on one whose voxels are ``stride`` of them, both beginning at the same corner."""
    return (fine + 0.5) / stride - 0.5


def fine_position(coarse: np.ndarray, stride: float) -> np.ndarray:
    """The inverse of ``coarse_position``."""
    return (coarse + 0.5) * stride - 0.5


def interpolate(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Values (…, *spatial) at new places along each of the last axes; matrices: (new, old) per axis."""
    for axis, matrix in zip(range(-len(matrices), 0), matrices, strict=True):
        if matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, torch.eye(len(matrix), device=matrix.device)):
            continue
        if axis == -1:
            values = values @ matrix.mT
        else:  # as rows of all that comes after the axis: no transposed copy
            values = (matrix @ values.flatten(axis + 1)).unflatten(-1, values.shape[axis + 1 :])
    return values
