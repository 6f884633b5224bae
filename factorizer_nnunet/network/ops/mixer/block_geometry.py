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


def membership(
    geometry: Geometry,
    device: torch.device,
    table_of_windows: Tensor | None = None,
    table_of_blocks: Tensor | None = None,
) -> Membership:
    """The membership of blocks in the windows of a family; made here, unless it comes from ``graph_tables``."""
    if table_of_windows is None or table_of_blocks is None:
        return _membership(geometry, device)
    return Membership(blocks=table_of_windows, windows=table_of_blocks)


def graph_tables(packed: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Both tables of the membership as constants of a compiled graph, while kernels are inlined; else None.

    Code that is being recorded cannot make tensors of its own, as operators do. packed: a ``Geometry``.
    """
    if not is_inlining():
        return None, None
    return _table_of_windows(tuple(packed), device), _table_of_blocks(tuple(packed), device)


@torch.compiler.assume_constant_result
def _table_of_windows(packed: tuple[int, ...], device: torch.device) -> Tensor:
    return _membership(unpacked(packed), device).blocks


@torch.compiler.assume_constant_result
def _table_of_blocks(packed: tuple[int, ...], device: torch.device) -> Tensor:
    return _membership(unpacked(packed), device).windows


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
