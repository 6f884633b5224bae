"""A volume in slabs of blocks, for passes that read and write it piece by piece (``cpu``).

The blocks of a family of shifts may begin before the volume, end behind it, or wrap around (``windows.Family``).
Nothing is moved for that: along each axis, a slab knows which voxels of the volume its blocks contain, in runs of
complete blocks or of a part of one.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from factorizer_nnunet.network.windows import AxisGrid, Family

_SLAB_BYTES = 2**21  # a few times the cache of a core: then a call costs less than the work it does


@dataclass(frozen=True)
class Run:
    """Adjacent voxels along an axis that fill complete blocks, or a part of one block."""

    blocks: slice  # counted from the slab's first block
    part: slice  # of each block
    voxels: slice  # of the volume


@dataclass(frozen=True)
class Piece:
    """The blocks of a slab along one axis."""

    blocks: slice  # among all blocks of the axis
    block: int  # voxels
    runs: tuple[Run, ...]

    @property
    def count(self) -> int:
        """Number of blocks."""
        return _length(self.blocks)

    @property
    def is_full(self) -> bool:
        """Whether every voxel of the blocks lies in the volume."""
        return sum(_length(run.voxels) for run in self.runs) == self.count * self.block


@dataclass(frozen=True)
class Slab:
    """Complete blocks of a case."""

    case: int
    pieces: tuple[Piece, ...]  # one per axis

    def load(self, volume: Tensor, scratch: Tensor) -> Tensor:
        """Copy the slab's voxels of (B, *spatial, C) to (blocks, voxels of a block, C), zeros outside the volume.

        The result is a view of ``scratch`` (see the function of that name), which is overwritten.
        """
        matrices = self.view(scratch, volume.shape[-1])
        blocks = self._split(matrices)
        if not all(piece.is_full for piece in self.pieces):
            blocks.zero_()
        for in_blocks, in_volume in self._views(blocks, volume):
            in_blocks.copy_(in_volume)
        return matrices

    def view(self, scratch: Tensor, channels: int) -> Tensor:
        """The beginning of ``scratch`` as (blocks, voxels of a block, channels)."""
        count, voxels = (math.prod(n) for n in zip(*((p.count, p.block) for p in self.pieces), strict=True))
        return scratch[: count * voxels * channels].view(count, voxels, channels)

    def store(self, matrices: Tensor, volume: Tensor) -> None:
        """Write ``matrices`` to their place in the volume (B, *spatial, C)."""
        for in_blocks, in_volume in self._views(self._split(matrices), volume):
            in_volume.copy_(in_blocks)

    def add(self, matrices: Tensor, volume: Tensor) -> None:
        """Add ``matrices`` to their place in the volume (B, *spatial, C)."""
        for in_blocks, in_volume in self._views(self._split(matrices), volume):
            in_volume.add_(in_blocks)

    def select_blocks(self, blocks: Tensor) -> Tensor:
        """The slab's blocks of (B, *blocks, …), as (blocks, …); a view, or a copy where they are not adjacent."""
        return self._select(blocks).flatten(0, len(self.pieces) - 1)

    def store_blocks(self, values: Tensor, blocks: Tensor) -> None:
        """Write (blocks, …) to their place in (B, *blocks, …)."""
        place = self._select(blocks)
        place.copy_(values.reshape(place.shape))

    def _select(self, blocks: Tensor) -> Tensor:
        return blocks[self.case][tuple(piece.blocks for piece in self.pieces)]

    def _split(self, matrices: Tensor) -> Tensor:
        """(blocks, voxels of a block, C) to (*blocks, *voxels, C)."""
        return matrices.view(*(p.count for p in self.pieces), *(p.block for p in self.pieces), matrices.shape[-1])

    def _views(self, blocks: Tensor, volume: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The same voxels in the blocks (*blocks, *voxels, C) and in the volume, run by run."""
        for place in self._places:
            yield blocks[place.blocks], volume[place.volume].view(place.split).permute(place.order)

    @functools.cached_property
    def _places(self) -> list[_Place]:
        return [_place(self.case, runs) for runs in itertools.product(*(piece.runs for piece in self.pieces))]


@dataclass(frozen=True)
class _Place:
    """Where one run per axis lies: an index of the blocks, an index of the volume, and how to view it as blocks."""

    blocks: tuple[slice, ...]
    volume: tuple[int | slice, ...]
    split: tuple[int, ...]
    order: tuple[int, ...]


def _place(case: int, runs: Sequence[Run]) -> _Place:
    ndim = len(runs)
    split = [n for run in runs for n in (_length(run.blocks), _length(run.part))]
    return _Place(
        (*(run.blocks for run in runs), *(run.part for run in runs)),
        (case, *(run.voxels for run in runs)),
        (*split, -1),
        (*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2), 2 * ndim),
    )


def _length(part: slice) -> int:
    return part.stop - part.start


def scratch(slabs: Sequence[Slab], volume: Tensor) -> Tensor:
    """Memory for the matrices of any one slab, reused for the next: allocating it costs more than filling it."""
    voxels = max(math.prod(p.count * p.block for p in slab.pieces) for slab in slabs)
    return volume.new_empty(voxels * volume.shape[-1])


def slabs(volume: Tensor, family: Family) -> list[Slab]:
    """All slabs of (B, *spatial, C): as many blocks as fit ``_SLAB_BYTES``, complete rows along the last axes first."""
    return _slabs(tuple(volume.shape[:-1]), family, _SLAB_BYTES // (volume.shape[-1] * volume.element_size()))


@functools.lru_cache(maxsize=64)
def _slabs(size: tuple[int, ...], family: Family, max_voxels: int) -> list[Slab]:
    """``size`` is (B, *spatial)."""
    axes = family.grid.axes
    max_blocks = max_voxels // math.prod(axis.block for axis in axes)
    pieces: list[list[Piece]] = []
    for axis, voxels, front, roll in reversed(list(zip(axes, size[1:], family.fronts, family.rolls, strict=True))):
        length = max(1, min(axis.num_blocks, max_blocks))
        max_blocks //= length
        segments = _segments(axis, voxels, front, roll)
        starts = range(0, axis.num_blocks, length)
        pieces.insert(0, [_piece(axis, start, min(start + length, axis.num_blocks), segments) for start in starts])
    return [Slab(case, chosen) for case in range(size[0]) for chosen in itertools.product(*pieces)]


def _segments(axis: AxisGrid, size: int, front: int, roll: int) -> list[tuple[int, int, int]]:
    """Where the ``size`` voxels of an axis lie in its blocks: start in the blocks, start in the volume, length."""
    if not roll:
        return [(front, 0, size)]
    return [(0, roll, max(size - roll, 0)), (axis.num_blocks * axis.block - roll, 0, min(size, roll))]


def _piece(axis: AxisGrid, first: int, stop: int, segments: Sequence[tuple[int, int, int]]) -> Piece:
    """Blocks ``first`` to ``stop`` of an axis."""
    runs = []
    for in_blocks, in_volume, count in segments:
        begin, end = max(in_blocks, first * axis.block), min(in_blocks + count, stop * axis.block)
        while begin < end:
            block, within = divmod(begin, axis.block)
            complete = 0 if within else (end - begin) // axis.block
            length = complete * axis.block or min(end - begin, axis.block - within)
            voxel = in_volume + begin - in_blocks
            runs.append(
                Run(
                    slice(block - first, block - first + max(complete, 1)),
                    slice(within, axis.block if complete else within + length),
                    slice(voxel, voxel + length),
                )
            )
            begin += length
    return Piece(slice(first, stop), axis.block, tuple(runs))
