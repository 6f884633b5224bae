"""Which tile a voxel is looked at in, and who looks: each voxel belongs to the tile whose centre is nearest.

So the passes of a prediction (folds, and mirrored images within each fold) can be compared tile by tile: without sums
for each of them, every voxel of the image is seen once in each pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from torch import Tensor

Box = tuple[slice, slice, slice]  # z, y, x


@dataclass(frozen=True)
class TilePart:
    """The voxels of a tile that are nearer to its centre than to those of other tiles.

    Attributes:
        inside: where they are in the tile.
        place: where they are in the image.
    """

    inside: Box
    place: Box


class PassWatcher(Protocol):
    """Sees every pass through the network. If the GPU has too little memory, ``begin`` comes again without ``end``."""

    def begin(self, part: TilePart) -> None:
        """A tile is next."""

    def see_pass(self, fold: int, logits: Tensor) -> None:
        """The logits of a tile in one pass, (classes, z, y, x); to be used at once, since they change afterwards."""

    def see_fold(self, fold: int, logits: Tensor) -> None:
        """The mean of all passes of a fold, which have been seen."""

    def end(self) -> None:
        """All folds of the tile have been seen."""


def nearest_parts(starts: Sequence[int], length: int, size: int) -> list[slice]:
    """For each tile along an axis, the voxels that are nearer to its centre than to those of others.

    Args:
        starts: first voxels of the tiles, ascending.
        length: of a tile.
        size: of the axis, which the tiles cover.
    """
    edges = [0, *((one + other + length) // 2 for one, other in pairwise(starts)), size]
    return [slice(low, high) for low, high in pairwise(edges)]


class TileParts:
    """The parts of all tiles.

    Args:
        starts: first voxels of the tiles along z, y and x, ascending, in the padded image.
        lengths: of a tile.
        sizes: of the padded image.
        image: where the image is in it.
    """

    def __init__(
        self, starts: Sequence[Sequence[int]], lengths: Sequence[int], sizes: Sequence[int], image: Sequence[slice]
    ) -> None:
        self._image = [range(size)[part] for size, part in zip(sizes, image, strict=True)]
        self._nearest = [
            dict(zip(first, nearest_parts(first, length, size), strict=True))
            for first, length, size in zip(starts, lengths, sizes, strict=True)
        ]

    def of(self, start: Sequence[int]) -> TilePart | None:
        """The part of the tile with these first voxels; None if all of it is padding."""
        inside, place = [], []
        for first, nearest, image in zip(start, self._nearest, self._image, strict=True):
            low, high = max(nearest[first].start, image.start), min(nearest[first].stop, image.stop)
            if low >= high:
                return None
            inside.append(slice(low - first, high - first))
            place.append(slice(low - image.start, high - image.start))
        return TilePart((inside[0], inside[1], inside[2]), (place[0], place[1], place[2]))
