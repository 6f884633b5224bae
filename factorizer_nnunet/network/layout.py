"""How volumes lie in memory: channels first or last, as batches of blocks or windows; each with its exact inverse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from factorizer_nnunet.network.windows import AxisGrid, Family, WindowGrid, window_family


def channels_first(x: Tensor) -> Tensor:
    """View (B, *spatial, C) as (B, C, *spatial)."""
    return x.movedim(-1, 1)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, *spatial) as a contiguous (B, *spatial, C); no copy if the storage is channels last already."""
    return x.movedim(1, -1).contiguous()


def to_blocks(x: Tensor, axes: Sequence[AxisGrid], head_dim: int) -> Tensor:
    """(B, *spatial, C) to (B, *blocks, heads, voxels of a block, head_dim), zero-padded to complete blocks.

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
    for i, axis in enumerate(axes, 1):
        x = x.narrow(i, 0, axis.size) if axis.padding else x
    return x


def moved(x: Tensor, family: Family) -> Tensor:
    """The volume (B, *spatial, C) padded and rolled so that the blocks of a family begin at its start."""
    if family.moves:
        backs = [
            axis.size - size - front if roll else 0
            for axis, size, front, roll in zip(
                family.grid.axes, x.shape[1:-1], family.fronts, family.rolls, strict=True
            )
        ]
        pairs = list(zip(family.fronts, backs, strict=True))
        x = F.pad(x, [0, 0] + [voxels for pair in reversed(pairs) for voxels in pair])
        x = _rolled(x, [-roll for roll in family.rolls])
    return x


def moved_back(x: Tensor, family: Family, size: Sequence[int]) -> Tensor:
    """The inverse of ``moved`` for a volume of ``size`` voxels."""
    if family.moves:
        x = _rolled(x, family.rolls)
        for i, (front, voxels) in enumerate(zip(family.fronts, size, strict=True), 1):
            x = x.narrow(i, front, voxels)
    return x


def to_windows(x: Tensor, grid: WindowGrid, offset: Sequence[int], head_dim: int) -> Tensor:
    """(B, *spatial, C) to the windows of one shift, (B, *windows, heads, voxels of a window, head_dim).

    ``offset`` is one entry of ``grid.offsets``. Windows that the border cuts off are padded with zeros.
    """
    family = window_family(grid, offset)
    return to_blocks(moved(x, family), family.grid.axes, head_dim)


def from_windows(windows: Tensor, grid: WindowGrid, offset: Sequence[int]) -> Tensor:
    """The inverse of ``to_windows``: (B, *spatial, C)."""
    family = window_family(grid, offset)
    return moved_back(from_blocks(windows, family.grid.axes), family, [axis.size for axis in grid.axes])


def _rolled(x: Tensor, shifts: Sequence[int]) -> Tensor:
    """x (B, *spatial, C) rolled along its axes; x itself where all shifts are 0."""
    moving = {i: shift for i, shift in enumerate(shifts, 1) if shift}
    return torch.roll(x, list(moving.values()), list(moving)) if moving else x
