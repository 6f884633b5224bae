"""A volume in slabs of blocks, for passes that read and write it piece by piece (``cpu``).

The blocks of a family of shifts may begin before the volume, end behind it, or wrap around (``windows.Family``).
The volume is not moved for that: a slab knows where its voxels lie, in one or more places.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace

from torch import Tensor

from factorizer_nnunet.network.layout import from_blocks, to_blocks
from factorizer_nnunet.network.windows import AxisGrid, Family

_SLAB_BYTES = 2**21  # a few times the cache of a core: then a call costs less than the work it does

Place = tuple[slice, slice]  # voxels in a slab, and the same voxels in the volume, along an axis


@dataclass(frozen=True)
class Slab:
    """Complete blocks of a case."""

    case: int
    blocks: tuple[slice, ...]  # among all blocks of each axis
    axes: tuple[AxisGrid, ...]  # of the slab alone
    places: tuple[tuple[tuple[slice, ...], tuple[slice, ...]], ...]  # a ``Place`` per axis: in the slab, in the volume

    def load(self, volume: Tensor) -> Tensor:
        """Copy the slab's voxels of (B, *spatial, C) to (blocks, voxels of a block, C), zeros outside the volume."""
        size = [axis.size for axis in self.axes]
        voxels = volume[self.case][self.places[0][1]] if self.places else volume[self.case, :0]
        if list(voxels.shape[:-1]) != size:
            voxels = volume.new_zeros(*size, volume.shape[-1])
            for in_slab, in_volume in self.places:
                voxels[in_slab] = volume[self.case][in_volume]
        return to_blocks(voxels[None], self.axes, volume.shape[-1]).flatten(0, len(size) + 1)

    def store(self, matrices: Tensor, volume: Tensor, add: bool = False) -> None:
        """Write ``matrices`` to their place in the volume (B, *spatial, C), or add them to it."""
        blocks = matrices.reshape(1, *(axis.num_blocks for axis in self.axes), 1, *matrices.shape[1:])
        voxels = from_blocks(blocks, self.axes)[0]
        for in_slab, in_volume in self.places:
            place = volume[self.case][in_volume]
            place.add_(voxels[in_slab]) if add else place.copy_(voxels[in_slab])

    def select_blocks(self, blocks: Tensor) -> Tensor:
        """The slab's blocks of (B, *blocks, …), as (blocks, …); a view, or a copy where they are not adjacent."""
        return blocks[self.case][self.blocks].flatten(0, len(self.axes) - 1)

    def store_blocks(self, values: Tensor, blocks: Tensor) -> None:
        """Write (blocks, …) to their place in (B, *blocks, …)."""
        place = blocks[self.case][self.blocks]
        place.copy_(values.reshape(place.shape))


def slabs(volume: Tensor, family: Family) -> list[Slab]:
    """All slabs of (B, *spatial, C): as many blocks as fit ``_SLAB_BYTES``, complete rows along the last axes first."""
    return _slabs(tuple(volume.shape[:-1]), family, _SLAB_BYTES // (volume.shape[-1] * volume.element_size()))


@functools.lru_cache(maxsize=64)
def _slabs(shape: tuple[int, ...], family: Family, max_voxels: int) -> list[Slab]:
    """``shape`` is (B, *spatial)."""
    axes = family.grid.axes
    max_blocks = max_voxels // math.prod(axis.block for axis in axes)
    per_axis: list[list[tuple[slice, AxisGrid, list[Place]]]] = []
    for axis, size, front, roll in reversed(list(zip(axes, shape[1:], family.fronts, family.rolls, strict=True))):
        length = max(1, min(axis.num_blocks, max_blocks))
        max_blocks //= length
        pieces = []
        for start in range(0, axis.num_blocks, length):
            stop = min(start + length, axis.num_blocks)
            own = replace(axis, size=(stop - start) * axis.block, num_blocks=stop - start)
            pieces.append((slice(start, stop), own, _places(axis, size, front, roll, start * axis.block, own.size)))
        per_axis.insert(0, pieces)
    result = []
    for case, chosen in itertools.product(range(shape[0]), itertools.product(*per_axis)):
        blocks, own_axes, places = zip(*chosen, strict=True)
        boxes = itertools.product(*places)
        pairs = tuple((tuple(own for own, _ in box), tuple(voxels for _, voxels in box)) for box in boxes)
        result.append(Slab(case, blocks, own_axes, pairs))
    return result


def _places(axis: AxisGrid, size: int, front: int, roll: int, begin: int, length: int) -> list[Place]:
    """Where voxels ``begin`` to ``begin + length`` of the blocks of an axis lie in its ``size`` voxels."""
    complete = axis.num_blocks * axis.block
    # the position in the blocks of voxel 0, once before and once behind the end for blocks that wrap around
    firsts = (-roll, complete - roll) if roll else (front,)
    places = []
    for first in firsts:
        low, high = max(begin, first), min(begin + length, first + size)
        if low < high:
            places.append((slice(low - begin, high - begin), slice(low - first, high - first)))
    return places
