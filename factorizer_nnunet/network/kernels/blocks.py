"""Where the blocks of a family of shifts lie in a volume, and the matrices of their heads among its channels."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import triton
from triton import language as tl

from factorizer_nnunet.network.windows import Family


@triton.jit
def places(
    voxels,
    block,
    d_size,
    h_size,
    w_size,
    d_start,
    h_start,
    w_start,
    d_turn,
    h_turn,
    w_turn,
    h_count,
    w_count,
    d_block: tl.constexpr,
    h_block: tl.constexpr,
    w_block: tl.constexpr,
):
    """Which voxels of a case those of a block are, and whether they lie in the volume.

    Along each axis the blocks begin at ``start``; where ``turn`` is not 0, what goes beyond it begins again.
    """
    d = block // (h_count * w_count) * d_block + voxels // (h_block * w_block) + d_start
    h = block // w_count % h_count * h_block + voxels // w_block % h_block + h_start
    w = block % w_count * w_block + voxels % w_block + w_start
    d = tl.where((d_turn > 0) & (d >= d_turn), d - d_turn, d)
    h = tl.where((h_turn > 0) & (h >= h_turn), h - h_turn, h)
    w = tl.where((w_turn > 0) & (w >= w_turn), w - w_turn, w)
    inside = (d >= 0) & (d < d_size) & (h >= 0) & (h < h_size) & (w >= 0) & (w < w_size)
    return (d * h_size + h) * w_size + w, inside & (voxels < d_block * h_block * w_block)


@triton.jit
def per_head(start, row_stride, cols, exists, head_dim):
    """Where the entries of each head's matrix lie as a block of a (C, C) matrix, and which entries those are."""
    same = (cols // head_dim)[:, None] == (cols // head_dim)[None, :]
    rows = (cols // head_dim) * head_dim * row_stride + cols % head_dim * row_stride
    return start + rows[:, None] + (cols % head_dim)[None, :], same & exists[:, None] & exists[None, :]


@triton.jit
def of_windows(start, table, block, blocks, entries, row_stride, shifts, cols, exists, head_dim):
    """Sum over the windows that hold a block of their heads' matrices, as a (C, C) matrix.

    start: of the case's matrices, ``entries`` numbers a window; table: (shifts, blocks), the windows.
    """
    at, same = per_head(start, row_stride, cols, exists, head_dim)
    total = tl.zeros([cols.shape[0], cols.shape[0]], tl.float32)
    for shift in range(shifts):
        window = tl.load(table + shift * blocks + block)
        total += tl.load(at + window * entries, same, 0.0)
    return total


@triton.jit
def last_of_windows(start, table, block, blocks, entries, row_stride, shifts, cols, exists, head_dim):
    """Likewise of the column behind the matrices, (C,)."""
    total = tl.zeros([cols.shape[0]], tl.float32)
    for shift in range(shifts):
        window = tl.load(table + shift * blocks + block)
        total += tl.load(start + window * entries + cols * row_stride + head_dim, exists, 0.0)
    return total


def windows_of_blocks(count: int, per_window: int, cyclic: int, start: int) -> list[int]:
    """The window that holds each block of an axis, borders ``start`` blocks from the first."""
    if cyclic:
        return [(block - start) % count // per_window for block in range(count)]
    return [(block + -start % per_window) // per_window for block in range(count)]


@dataclass(frozen=True)
class Geometry:
    """Blocks and windows of a family, three axes each; as integers, since operators of torch take no objects."""

    size: tuple[int, ...]  # voxels of the volume
    start: tuple[int, ...]  # voxel at which the first block begins
    turn: tuple[int, ...]  # voxel behind which blocks go on at the start of the volume; 0: nowhere
    count: tuple[int, ...]  # blocks
    block: tuple[int, ...]  # voxels of a block
    per_window: tuple[int, ...]  # blocks of a window
    cyclic: tuple[int, ...]  # 0 or 1
    offsets: tuple[int, ...]  # of every shift, in blocks

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return math.prod(self.count)

    @property
    def block_voxels(self) -> int:
        """Voxels of a block."""
        return math.prod(self.block)

    @property
    def windows(self) -> int:
        """How many windows there are, of all shifts together."""
        total = 0
        for shift in range(0, len(self.offsets), 3):
            offset = self.offsets[shift : shift + 3]
            axes = zip(self.count, self.per_window, self.cyclic, offset, strict=True)
            total += math.prod(max(windows_of_blocks(*axis)) + 1 for axis in axes)
        return total

    def for_places(self) -> tuple[int, ...]:
        """Arguments of ``places`` after the block."""
        return (*self.size, *self.start, *self.turn, *self.count[1:], *self.block)

    def packed(self) -> list[int]:
        """All numbers in a row."""
        return [number for part in fields(self) for number in getattr(self, part.name)]


@functools.lru_cache(maxsize=256)
def unpacked(numbers: tuple[int, ...]) -> Geometry:
    """The inverse of ``Geometry.packed``."""
    whole = len(fields(Geometry)) - 1
    axes = [tuple(numbers[3 * i : 3 * i + 3]) for i in range(whole)]
    return Geometry(*axes, tuple(numbers[3 * whole :]))


def geometry(spatial_size: Sequence[int], family: Family) -> Geometry:
    """Of a family's blocks in a volume of ``spatial_size`` voxels (2 or 3 axes)."""
    missing, axes = 3 - len(spatial_size), family.grid.axes

    def filled(values: Sequence[int], filling: int) -> tuple[int, ...]:
        return (*[filling] * missing, *values)

    return Geometry(
        filled(spatial_size, 1),
        filled([roll - front for front, roll in zip(family.fronts, family.rolls, strict=True)], 0),
        filled([a.num_blocks * a.block if roll else 0 for a, roll in zip(axes, family.rolls, strict=True)], 0),
        filled([axis.num_blocks for axis in axes], 1),
        filled([axis.block for axis in axes], 1),
        filled([axis.blocks_per_window for axis in axes], 1),
        filled([int(axis.cyclic) for axis in axes], 0),
        tuple(number for offset in family.grid.offsets for number in filled(offset, 0)),
    )
