"""Where the blocks of a family of shifts lie in a volume, and which windows contain them, for the Triton kernels."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from factorizer_nnunet.network.ops.launch import is_inlining
from factorizer_nnunet.network.windows import Family


@dataclass(frozen=True)
class Geometry:
    """Blocks and windows of a family, three axes each; as integers, since operators of torch take no objects."""

    size: tuple[int, ...]  # voxels of the volume
    start: tuple[int, ...]  # voxel at which the first block begins
    wrap: tuple[int, ...]  # voxel from which blocks continue at the start of the volume; 0: they do not
    count: tuple[int, ...]  # blocks
    block: tuple[int, ...]  # voxels of a block
    per_window: tuple[int, ...]  # blocks of a window
    cyclic: tuple[int, ...]  # 0 or 1
    offsets: tuple[int, ...]  # of every shift, in blocks, three each

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return math.prod(self.count)

    @property
    def block_voxels(self) -> int:
        """Voxels of a block."""
        return math.prod(self.block)

    @property
    def num_windows(self) -> int:
        """Number of windows of all shifts together."""
        return sum(math.prod(max(axis) + 1 for axis in axes) for axes in self.windows_of_blocks())

    def windows_of_blocks(self) -> list[list[list[int]]]:
        """For each shift and axis, the window that contains each block."""
        shifts = [self.offsets[i : i + 3] for i in range(0, len(self.offsets), 3)]
        return [
            [_windows_of_blocks(*axis) for axis in zip(self.count, self.per_window, self.cyclic, offset, strict=True)]
            for offset in shifts
        ]

    def kernel_arguments(self) -> tuple[int, ...]:
        """The arguments of ``triton_blocks.block_tile`` about blocks: sizes, starts, wraps, counts, block."""
        return (*self.size, *self.start, *self.wrap, *self.count[1:], *self.block)

    def packed(self) -> list[int]:
        """All numbers in one list."""
        return [number for part in fields(self) for number in getattr(self, part.name)]


@functools.lru_cache(maxsize=256)
def unpacked(numbers: tuple[int, ...]) -> Geometry:
    """The inverse of ``Geometry.packed``."""
    size, start, wrap, count, block, per_window, cyclic = (numbers[i : i + 3] for i in range(0, 21, 3))
    return Geometry(size, start, wrap, count, block, per_window, cyclic, offsets=numbers[21:])


def geometry(spatial_size: Sequence[int], family: Family) -> Geometry:
    """The geometry of a family's blocks in a volume of ``spatial_size`` voxels (2 or 3 axes)."""
    missing, axes = 3 - len(spatial_size), family.grid.axes

    def filled(values: Sequence[int], filling: int) -> tuple[int, ...]:
        return (*[filling] * missing, *values)

    return Geometry(
        size=filled(spatial_size, 1),
        start=filled([roll - front for front, roll in zip(family.fronts, family.rolls, strict=True)], 0),
        wrap=filled([a.num_blocks * a.block if roll else 0 for a, roll in zip(axes, family.rolls, strict=True)], 0),
        count=filled([axis.num_blocks for axis in axes], 1),
        block=filled([axis.block for axis in axes], 1),
        per_window=filled([axis.blocks_per_window for axis in axes], 1),
        cyclic=filled([int(axis.cyclic) for axis in axes], 0),
        offsets=tuple(number for offset in family.grid.offsets for number in filled(offset, 0)),
    )


@dataclass(frozen=True)
class Membership:
    """Which blocks make up which windows, all shifts one after the other; integers on a device."""

    blocks: Tensor  # (windows, blocks of a complete window), -1 where a window is cut off
    windows: Tensor  # (shifts, blocks)

    @property
    def num_shifts(self) -> int:
        """The number of windows that contain a block."""
        return self.windows.shape[0]


def membership(geometry: Geometry, device: torch.device) -> Membership:
    """The membership of blocks in the windows of a family."""
    return recorded_membership(geometry, device) if is_inlining() else _membership(geometry, device)


def recorded_membership(geometry: Geometry, device: torch.device) -> Membership:
    """The same by operators of torch, which a compiled graph records: it cannot keep the tensors of a cache.

    The blocks of a window come in another order, and -1 may be anywhere.
    """
    windows: list[Tensor] = []
    blocks: list[Tensor] = []
    first = 0
    shifts = [geometry.offsets[i : i + 3] for i in range(0, len(geometry.offsets), 3)]
    for shift, axes in zip(shifts, geometry.windows_of_blocks(), strict=True):
        counts = [max(axis) + 1 for axis in axes]
        settings = zip(geometry.count, geometry.per_window, geometry.cyclic, shift, counts, strict=True)
        (d, in_d), (h, in_h), (w, in_w) = (_recorded_axis(*axis, device) for axis in settings)
        window = (d[:, None, None] * counts[1] + h[:, None]) * counts[2] + w
        windows.append(first + window.flatten())
        d, h, w = in_d[:, None, None, :, None, None], in_h[:, None, None, :, None], in_w[:, None, None, :]
        block = (d * geometry.count[1] + h) * geometry.count[2] + w
        blocks.append(torch.where((d >= 0) & (h >= 0) & (w >= 0), block, -1).flatten(0, 2).flatten(1))
        first += math.prod(counts)
    return Membership(torch.cat(blocks).to(torch.int32), torch.stack(windows).to(torch.int32))


def _recorded_axis(
    count: int, per_window: int, cyclic: int, start: int, num_windows: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The window of each block of an axis (blocks,), and the blocks of each window (windows, blocks of a window)."""
    blocks = torch.arange(count, device=device)
    places = torch.arange(num_windows * per_window, device=device).reshape(num_windows, per_window)
    if cyclic:
        window_of_block = (blocks - start) % count // per_window
        return window_of_block, torch.where(places < count, (places + start) % count, -1)
    before = -start % per_window
    block = places - before
    return (blocks + before) // per_window, torch.where((block >= 0) & (block < count), block, -1)


@functools.lru_cache(maxsize=64)
def _membership(geometry: Geometry, device: torch.device) -> Membership:
    windows_of_shifts: list[list[int]] = []
    blocks_of_windows: list[list[int]] = []
    for axes in geometry.windows_of_blocks():
        counts = [max(axis) + 1 for axis in axes]
        first = len(blocks_of_windows)
        windows = [first + _flat_index(window, counts) for window in itertools.product(*axes)]
        blocks_of_windows += [[] for _ in range(math.prod(counts))]
        for block, window in enumerate(windows):
            blocks_of_windows[window].append(block)
        windows_of_shifts.append(windows)
    length = max(map(len, blocks_of_windows))
    padded = [blocks + [-1] * (length - len(blocks)) for blocks in blocks_of_windows]
    return Membership(*(torch.tensor(table, dtype=torch.int32, device=device) for table in (padded, windows_of_shifts)))


def _windows_of_blocks(count: int, per_window: int, cyclic: int, start: int) -> list[int]:
    """The window that contains each block of an axis; window borders are ``start`` blocks from the first block."""
    if cyclic:
        return [(block - start) % count // per_window for block in range(count)]
    return [(block + -start % per_window) // per_window for block in range(count)]


def _flat_index(index: Sequence[int], counts: Sequence[int]) -> int:
    return functools.reduce(lambda flat, axis: flat * axis[1] + axis[0], zip(index, counts, strict=True), 0)
