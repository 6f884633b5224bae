"""A volume in slabs of blocks, for walks that read and write it piece by piece (``residual_mixer``).

The blocks of a family of shifts may begin before the volume, end behind it, or wrap around (``windows.Family``).
Nothing is moved for that: along each axis a slab knows which voxels of the volume its blocks hold, in runs of whole
blocks or of a part of one.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from factorizer_nnunet.network.windows import AxisGrid, Family

_SLAB_BYTES = 2**21  # a few times the cache of a core: each call then costs less than what it does


@dataclass(frozen=True)
class Run:
    """Neighbouring voxels along an axis that fill whole blocks, or a part of one block."""

    blocks: slice  # counted from the slab's first one
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
        """How many blocks."""
        return _length(self.blocks)

    @property
    def is_full(self) -> bool:
        """Whether every voxel of the blocks lies in the volume."""
        return sum(_length(run.voxels) for run in self.runs) == self.count * self.block


@dataclass(frozen=True)
class Slab:
    """Whole blocks of a case."""

    case: int
    pieces: tuple[Piece, ...]  # one per axis

    def matrices(self, volume: Tensor, scratch: Tensor) -> Tensor:
        """Its voxels of (B, *spatial, C) as (blocks, voxels of a block, C), zeros outside the volume.

        The result is a view of ``scratch`` (see there), which is overwritten.
        """
        matrices = self.view(scratch, volume.shape[-1])
        blocks = self._split(matrices)
        if not all(piece.is_full for piece in self.pieces):
            blocks.zero_()
        for ours, theirs in self._views(blocks, volume):
            ours.copy_(theirs)
        return matrices

    def view(self, scratch: Tensor, channels: int) -> Tensor:
        """The beginning of ``scratch`` as (blocks, voxels of a block, channels)."""
        count, voxels = (math.prod(n) for n in zip(*((p.count, p.block) for p in self.pieces), strict=True))
        return scratch[: count * voxels * channels].view(count, voxels, channels)

    def write(self, matrices: Tensor, volume: Tensor) -> None:
        """Put ``matrices`` in their place of the volume (B, *spatial, C)."""
        for ours, theirs in self._views(self._split(matrices), volume):
            theirs.copy_(ours)

    def add(self, matrices: Tensor, volume: Tensor) -> None:
        """Add ``matrices`` to what is in their place of the volume (B, *spatial, C)."""
        for ours, theirs in self._views(self._split(matrices), volume):
            theirs.add_(ours)

    def among(self, blocks: Tensor) -> Tensor:
        """The slab's blocks of (B, *blocks, …), as (blocks, …); a view, or a copy where they do not adjoin."""
        return self._place(blocks).flatten(0, len(self.pieces) - 1)

    def put(self, values: Tensor, blocks: Tensor) -> None:
        """Put (blocks, …) in their place of (B, *blocks, …)."""
        place = self._place(blocks)
        place.copy_(values.reshape(place.shape))

    def _place(self, blocks: Tensor) -> Tensor:
        return blocks[(self.case, *(piece.blocks for piece in self.pieces))]

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
    """Where a run along every axis lies: an index of the blocks, and one of the volume with how to view it so."""

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


def scratch(walk: Sequence[Slab], volume: Tensor) -> Tensor:
    """Memory for the matrices of any one slab, to be used again for the next: new memory costs more than its values."""
    voxels = max(math.prod(p.count * p.block for p in slab.pieces) for slab in walk)
    return volume.new_empty(voxels * volume.shape[-1])


def slabs(volume: Tensor, family: Family) -> list[Slab]:
    """All slabs of (B, *spatial, C): as many blocks as ``_SLAB_BYTES`` hold, whole rows along the last axes first."""
    return _slabs(tuple(volume.shape[:-1]), family, _SLAB_BYTES // (volume.shape[-1] * volume.element_size()))


@functools.lru_cache(maxsize=64)
def _slabs(size: tuple[int, ...], family: Family, most_voxels: int) -> list[Slab]:
    """``size`` is (B, *spatial)."""
    axes = family.grid.axes
    fitting = most_voxels // math.prod(axis.block for axis in axes)
    pieces: list[list[Piece]] = []
    for axis, voxels, front, roll in reversed(list(zip(axes, size[1:], family.fronts, family.rolls, strict=True))):
        length = max(1, min(axis.num_blocks, fitting))
        fitting //= length
        stretches = _stretches(axis, voxels, front, roll)
        starts = range(0, axis.num_blocks, length)
        pieces.insert(0, [_piece(axis, start, min(start + length, axis.num_blocks), stretches) for start in starts])
    return [Slab(case, chosen) for case in range(size[0]) for chosen in itertools.product(*pieces)]


def _stretches(axis: AxisGrid, size: int, front: int, roll: int) -> list[tuple[int, int, int]]:
    """Where the ``size`` voxels of an axis lie in its blocks: first voxel there, first voxel here, and how many."""
    if not roll:
        return [(front, 0, size)]
    return [(0, roll, max(size - roll, 0)), (axis.num_blocks * axis.block - roll, 0, min(size, roll))]


def _piece(axis: AxisGrid, first: int, stop: int, stretches: Sequence[tuple[int, int, int]]) -> Piece:
    """Blocks ``first`` to ``stop`` of an axis."""
    runs = []
    for there, here, count in stretches:
        begin, end = max(there, first * axis.block), min(there + count, stop * axis.block)
        while begin < end:
            block, within = divmod(begin, axis.block)
            whole = 0 if within else (end - begin) // axis.block
            length = whole * axis.block or min(end - begin, axis.block - within)
            runs.append(
                Run(
                    slice(block - first, block - first + max(whole, 1)),
                    slice(within, axis.block if whole else within + length),
                    slice(here + begin - there, here + begin - there + length),
                )
            )
            begin += length
    return Piece(slice(first, stop), axis.block, tuple(runs))
