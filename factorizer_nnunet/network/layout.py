"""Stage ↔ matrices: channels-last volumes as batches of blocks or windows, each with its exact inverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from factorizer_nnunet.network.windows import AxisGrid, WindowGrid


def to_blocks(x: Tensor, axes: Sequence[AxisGrid], head_dim: int) -> Tensor:
    """(B, *spatial, C) to (B, *blocks, heads, voxels of a block, head_dim), zero-padded to whole blocks.

    Heads are consecutive groups of ``head_dim`` channels.
    """
    if any(axis.padding for axis in axes):
        x = F.pad(x, [0, 0] + [p for axis in reversed(axes) for p in (0, axis.padding)])
    ndim = len(axes)
    shape = [x.shape[0]]
    for axis in axes:
        shape += [axis.num_blocks, axis.block]
    x = x.reshape(*shape, -1, head_dim)
    counts = [1 + 2 * i for i in range(ndim)]
    voxels = [2 + 2 * i for i in range(ndim)]
    heads = 1 + 2 * ndim
    return x.permute(0, *counts, heads, *voxels, heads + 1).flatten(ndim + 2, 2 * ndim + 1)


def from_blocks(blocks: Tensor, axes: Sequence[AxisGrid]) -> Tensor:
    """The inverse of ``to_blocks``: (B, *spatial, C)."""
    ndim = len(axes)
    x = blocks.unflatten(ndim + 2, [axis.block for axis in axes])
    order = [0]
    for i in range(ndim):
        order += [1 + i, ndim + 2 + i]
    padded = [axis.num_blocks * axis.block for axis in axes]
    channels = blocks.shape[ndim + 1] * blocks.shape[-1]
    x = x.permute(*order, ndim + 1, 2 * ndim + 2).reshape(blocks.shape[0], *padded, channels)
    if any(axis.padding for axis in axes):
        x = x[(slice(None), *(slice(axis.size) for axis in axes))]
    return x


def to_windows(x: Tensor, grid: WindowGrid, offset: Sequence[int], head_dim: int) -> Tensor:
    """(B, *spatial, C) to the windows of one shift, (B, *windows, heads, voxels of a window, head_dim).

    ``offset`` is one entry of ``grid.offsets``. Windows cut off at the border are filled up with zeros.
    """
    axes = [_as_windows(axis, start) for axis, start in zip(grid.axes, offset, strict=True)]
    x = F.pad(x, [0, 0] + [p for axis in reversed(grid.axes) for p in (0, axis.padding)])
    x = _moved(x, grid, offset)
    fronts = [_front(axis, start) for axis, start in zip(grid.axes, offset, strict=True)]
    backs = [axis.size - front - x.shape[i] for i, (axis, front) in enumerate(zip(axes, fronts, strict=True), 1)]
    x = F.pad(x, [0, 0] + [p for pair in reversed(list(zip(fronts, backs, strict=True))) for p in pair])
    return to_blocks(x, axes, head_dim)


def from_windows(windows: Tensor, grid: WindowGrid, offset: Sequence[int]) -> Tensor:
    """The inverse of ``to_windows``: (B, *spatial, C)."""
    axes = [_as_windows(axis, start) for axis, start in zip(grid.axes, offset, strict=True)]
    x = from_blocks(windows, axes)
    fronts = [_front(axis, start) for axis, start in zip(grid.axes, offset, strict=True)]
    for i, (axis, front) in enumerate(zip(grid.axes, fronts, strict=True), 1):
        x = x.narrow(i, front, axis.num_blocks * axis.block)
    x = _moved(x, grid, [-start for start in offset])
    return x[(slice(None), *(slice(axis.size) for axis in grid.axes))]


def _front(axis: AxisGrid, start: int) -> int:
    """Zero voxels before the first one, so that a window that is cut off there is whole; none if cyclic."""
    return 0 if axis.cyclic else -start % axis.blocks_per_window * axis.block


def _moved(x: Tensor, grid: WindowGrid, offset: Sequence[int]) -> Tensor:
    """Roll cyclic axes so that windows with borders at ``offset`` begin at 0."""
    shifts = {
        i: -start * axis.block for i, (axis, start) in enumerate(zip(grid.axes, offset, strict=True), 1) if axis.cyclic
    }
    moving = {i: shift for i, shift in shifts.items() if shift}
    return torch.roll(x, list(moving.values()), list(moving)) if moving else x


def _as_windows(axis: AxisGrid, start: int) -> AxisGrid:
    """The axis in blocks of a whole window each, after padding and rolling."""
    length = _front(axis, start) + axis.num_blocks * axis.block
    count = -(-length // axis.window)
    return replace(axis, size=count * axis.window, block=axis.window, num_blocks=count, blocks_per_window=1)
