"""Linear interpolation between grids with parallel axes, as one small matrix per axis.

Positions are in voxels, 0 at the centre of the first one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def interpolation_matrix(positions: np.ndarray, size: int) -> Tensor:
    """Weights of ``size`` voxels at each position, (positions, size), float32; constant beyond the ends."""
    clipped = np.clip(positions, 0, size - 1)
    lower = np.minimum(np.floor(clipped).astype(int), max(size - 2, 0))
    upper = np.minimum(lower + 1, size - 1)
    weight = (clipped - lower).astype(np.float32)
    matrix = np.zeros((len(positions), size), np.float32)
    rows = np.arange(len(positions))
    matrix[rows, lower] = 1 - weight
    matrix[rows, upper] += weight
    return torch.from_numpy(matrix)


def coarse_position(fine: np.ndarray, stride: float) -> np.ndarray:
    """Positions on a grid with voxels ``stride`` times as large and the same corner."""
    return (fine + 0.5) / stride - 0.5


def fine_position(coarse: np.ndarray, stride: float) -> np.ndarray:
    """The inverse of ``coarse_position``."""
    return (coarse + 0.5) * stride - 0.5


def interpolate(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Interpolate values (…, *spatial) along each of the last axes; matrices: (new size, size) per axis."""
    for axis, matrix in zip(range(-len(matrices), 0), matrices, strict=True):
        if matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, torch.eye(len(matrix), dtype=matrix.dtype)):
            continue
        matrix = matrix.to(values.device)
        if axis == -1:
            values = values @ matrix.mT
        else:  # as rows of everything after the axis: no transposed copy
            values = (matrix @ values.flatten(axis + 1)).unflatten(-1, values.shape[axis + 1 :])
    return values
