"""Passes of a prediction compared by region, tile by tile, while a case is predicted.

Kept are counts of voxels, the labels of each member (each fold; of a single fold, each mirrored pass) as one byte a
voxel, and how many passes disagree at each voxel as another one. No pass is computed or blended for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from factorizer_nnunet.prediction.tile_parts import TilePart

_MOST_BITS = 62  # of regions that overlap, in one integer


@dataclass(frozen=True)
class Compared:
    """What the passes of a case have in common.

    Attributes:
        within: (folds, regions, passes, passes), int64: voxels that two passes of a fold have in common.
        between: (regions, folds, folds), int64: voxels that two folds have in common.
        confidence: (folds, regions, 3), float64: sum of the region's probability where the fold finds it, sum of its
            probability everywhere, and number of the voxels where the fold finds it.
        members: (members, z, y, x), labels of each member; see ``member_mask``.
        exclusive: whether regions cannot overlap.
        disagreement: (z, y, x), uint8: 255 times the share of passes that do not decide as most passes do.
    """

    within: np.ndarray
    between: np.ndarray
    confidence: np.ndarray
    members: np.ndarray
    exclusive: bool
    disagreement: np.ndarray

    def member_mask(self, member: int, region: int) -> np.ndarray:
        """Where a member finds a region, (z, y, x), bool."""
        codes = self.members[member]
        return codes == region + 1 if self.exclusive else (codes >> region & 1).astype(bool)


def pairwise_dice(common: np.ndarray) -> float:
    """The mean Dice of all pairs of masks, from the sizes of their intersections, (masks, masks).

    Pairs of empty masks are left out; NaN if there are no others.
    """
    first, second = np.triu_indices(len(common), 1)
    sizes = np.diag(common)
    totals = sizes[first] + sizes[second]
    pairs = totals > 0
    return float(np.mean(2 * common[first, second][pairs] / totals[pairs])) if pairs.any() else float("nan")


@dataclass
class _Tile:
    """What has been seen of a tile: decisions, see ``_decided``, of all passes of each fold and of each fold."""

    part: TilePart
    passes: dict[int, list[Tensor]] = field(default_factory=dict)
    folds: list[Tensor] = field(default_factory=list)
    confidence: list[Tensor] = field(default_factory=list)


class PassComparison:
    """A watcher that compares the passes of one case; ``result`` is complete when all planes have been taken.

    Args:
        shape: of the preprocessed image, (z, y, x).
        outputs: the network's output of each region.
        overlap: whether regions may overlap: each is decided by its own logit, else the largest logit decides.
        num_folds: in the prediction.
    """

    def __init__(self, shape: Sequence[int], outputs: Sequence[int], overlap: bool, num_folds: int) -> None:
        self._has_regions, self._num_folds = overlap, num_folds
        self._values, self._count = list(outputs), len(outputs)
        if self._has_regions and self._count > _MOST_BITS:
            raise ValueError(f"{self._count} regions that overlap: at most {_MOST_BITS} can be compared")
        small = self._count <= (8 if self._has_regions else 255)
        self._kind = np.uint8 if small else np.int64 if self._has_regions else np.uint16
        self._shape = tuple(shape)
        self._members: np.ndarray | None = None
        self._disagreement = np.zeros(self._shape, np.uint8)
        self._within: list[Tensor] = []
        self._between: list[Tensor] = []
        self._confidence: list[Tensor] = []
        self._tile: _Tile | None = None

    def begin(self, part: TilePart) -> None:
        self._tile = _Tile(part)

    def see_pass(self, fold: int, logits: Tensor) -> None:
        tile = self._current()
        z, y, x = tile.part.inside
        tile.passes.setdefault(fold, []).append(self._decided(logits[:, z, y, x].flatten(1)))

    def see_fold(self, fold: int, logits: Tensor) -> None:
        tile = self._current()
        z, y, x = tile.part.inside
        own = logits[:, z, y, x].flatten(1).float()
        decided = self._decided(own)
        probabilities = own.sigmoid() if self._has_regions else own.softmax(0)
        sums = []
        for region, output in enumerate(self._values):
            mask, values = self._mask(decided, region), probabilities[output]
            sums.append(torch.stack([(values * mask).sum(), values.sum(), mask.sum().float()]))
        tile.confidence.append(torch.stack(sums))
        tile.folds.append(decided)

    def end(self) -> None:
        tile = self._current()
        self._within.append(torch.stack([self._common(passes) for passes in tile.passes.values()]))
        self._between.append(self._common(tile.folds))
        self._confidence.append(torch.stack(tile.confidence))
        members = tile.folds if self._num_folds > 1 else tile.passes[0]
        if self._members is None:
            self._members = np.zeros((len(members), *self._shape), self._kind)
        shape = tuple(part.stop - part.start for part in tile.part.place)
        z, y, x = tile.part.place
        for number, decided in enumerate(members):
            self._members[number, z, y, x] = self._codes(decided).reshape(shape)
        every = [decided for passes in tile.passes.values() for decided in passes]
        self._disagreement[tile.part.place] = self._unlike(torch.stack(every)).reshape(shape)
        self._tile = None

    def result(self) -> Compared:
        """What was seen; of an image in which every tile was skipped, one pass that found nothing."""
        count, folds = self._count, self._num_folds
        members = self._members
        return Compared(
            _total(self._within, (folds, count, 1, 1)).round().astype(np.int64),
            _total(self._between, (count, folds, folds)).round().astype(np.int64),
            _total(self._confidence, (folds, count, 3)),
            np.zeros((1, *self._shape), self._kind) if members is None else members,
            not self._has_regions,
            self._disagreement,
        )

    def _current(self) -> _Tile:
        assert self._tile is not None  # between begin and end
        return self._tile

    def _decided(self, logits: Tensor) -> Tensor:
        """The class of each voxel, (voxels,), or of regions whether it belongs to each, (regions, voxels), bool."""
        return logits > 0 if self._has_regions else logits.argmax(0).to(torch.int16)

    def _mask(self, decided: Tensor, region: int) -> Tensor:
        """Where a region is, (…, voxels), bool."""
        return decided[..., self._values[region], :] if self._has_regions else decided == self._values[region]

    def _common(self, decisions: Sequence[Tensor]) -> Tensor:
        """(regions, passes, passes): voxels that two passes have in common, or one has."""
        stacked = torch.stack(list(decisions))
        sizes = []
        # Exact: a tile has fewer voxels than single precision has integers, 2 ** 24; half precision is switched off.
        with torch.autocast("cuda", enabled=False):
            for region in range(self._count):
                numbers = self._mask(stacked, region).float()
                sizes.append(numbers @ numbers.mT)
        return torch.stack(sizes)

    def _codes(self, decided: Tensor) -> np.ndarray:
        """One integer a voxel: of regions that overlap one bit for each, else the number of the region, from 1."""
        codes = np.zeros(decided.shape[-1], self._kind)
        for region in range(self._count):
            mask = self._mask(decided, region).numpy(force=True)
            if self._has_regions:
                codes |= mask.astype(self._kind) << self._kind(region)
            else:
                codes[mask] = region + 1
        return codes

    def _unlike(self, every: Tensor) -> np.ndarray:
        """255 times the share of passes that do not decide as most do; of regions, where that is largest.

        ``every`` has the decisions of all passes of all folds, (passes, …).
        """
        total = len(every)
        if self._has_regions:
            votes = every[:, self._values].sum(0, dtype=torch.int16)
            unlike = torch.minimum(votes, total - votes).amax(0)
        else:
            most = (every == 0).sum(0)
            for value in self._values:
                most = torch.maximum(most, (every == value).sum(0))
            unlike = total - most
        return (unlike.float() * (255 / total)).round().to(torch.uint8).numpy(force=True)


def _total(parts: Sequence[Tensor], empty: tuple[int, ...]) -> np.ndarray:
    """The sum of what was counted in all tiles, in double precision."""
    if not parts:
        return np.zeros(empty)
    return torch.stack(list(parts)).cpu().double().sum(0).numpy()
