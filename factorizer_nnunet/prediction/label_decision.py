"""From logits on the network's grid to labels on the image's, row by row, without the full-size logits of all classes.

Rows are planes of the first axis. In each, one class after another is interpolated and compared with the best so far.
The planes of the logits are taken one after the other, as the network finishes them; two at a time are kept.
Only the box around the foreground is computed: where all source voxels around a target voxel decide for background, so
does every mean of them. Several models are averaged as nnU-Net's ensembles are, by their probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

from factorizer_nnunet.prediction.devices import torch_threads
from factorizer_nnunet.prediction.resampling import AxisMap

Box = tuple[slice, slice]  # rows and columns of a plane
Extent = tuple[int, int, int, int]  # first and last row, first and last column


@dataclass(frozen=True)
class Source:
    """A model's logits, and how they are resampled.

    Attributes:
        planes: (classes, y, x) each, floating point, in the order of z.
        maps: one for each spatial axis, to the target grid.
        rounds: whether interpolated logits are rounded to the type of the planes, which decides some ties.
    """

    planes: Iterable[Tensor]
    maps: tuple[AxisMap, ...]
    rounds: bool = False


def decide_labels(sources: Sequence[Source], labels: LabelManager) -> np.ndarray:
    """Labels on the target grid: the most probable class, or regions above 0.5 in the order of ``regions_class_order``.

    Args:
        sources: models whose probabilities are averaged, with the same target grid.
        labels: of all of them.

    Returns:
        (z, y, x), uint8, or uint16 from 255 labels on, as nnU-Net stores them.
    """
    values = _label_values(labels)
    result = np.zeros([len(axis.low) for axis in sources[0].maps], values.dtype)
    windows = [_Window(source, labels.has_regions) for source in sources]
    for row in range(len(result)):
        for window in windows:
            window.move_to(row)
        box = _union([box for box in (window.target_box() for window in windows) if box is not None])
        if box is None:
            continue
        with torch_threads(1):  # a plane of one class is too little work for several
            classes = windows[0].classes(box) if len(windows) == 1 else _mean(windows, box, labels.has_regions)
            decided = _decide(classes, labels.has_regions, len(values))
        result[row][box] = values[decided.numpy(force=True)]
    return result


def _union(boxes: Sequence[Box]) -> Box | None:
    """The smallest box around all of them; None of none."""
    if not boxes:
        return None
    rows, columns = (
        slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*boxes, strict=True)
    )
    return rows, columns


def _mean(windows: Sequence[_Window], box: Box, has_regions: bool) -> Iterator[Tensor]:
    """The mean probability of each class in a part of the target plane; of regions, how far it is above 0.5."""
    total: Tensor | None = None
    for window in windows:
        logits = torch.stack(list(window.classes(box)))
        probabilities = logits.sigmoid_() if has_regions else logits.softmax(0)
        total = probabilities if total is None else total.add_(probabilities.to(total.device))
    assert total is not None
    mean = total.div_(len(windows))
    return iter(mean.sub_(0.5) if has_regions else mean)


def _label_values(labels: LabelManager) -> np.ndarray:
    """The label of each decision: of the classes, or with regions 0 for none and the label of each region."""
    values = [0, *labels.regions_class_order] if labels.has_regions else labels.all_labels
    return np.array(values, np.uint8 if len(labels.foreground_labels) < 255 else np.uint16)


class _Window:
    """The planes of a source that a target plane is interpolated from, with the extents of their foreground."""

    def __init__(self, source: Source, has_regions: bool) -> None:
        self.maps, self.rounds = source.maps, source.rounds
        self._planes, self._has_regions = enumerate(source.planes), has_regions
        self._kept: dict[int, tuple[Tensor, Extent | None]] = {}
        self._low = self._high = 0
        self._weight = 0.0

    def move_to(self, row: int) -> None:
        """Take planes until those of a target plane are complete; target planes come in ascending order."""
        z_map = self.maps[0]
        self._low, self._high, self._weight = int(z_map.low[row]), int(z_map.high[row]), float(z_map.weight[row])
        while self._high not in self._kept:
            number, plane = next(self._planes)
            if number >= self._low:
                with torch_threads(1):
                    self._kept[number] = plane, _foreground_extent(plane, self._has_regions)
        self._kept = {number: kept for number, kept in self._kept.items() if number >= self._low}

    def target_box(self) -> Box | None:
        """The part of the target plane that foreground in the source planes has a part in."""
        extents = [extent for _, extent in (self._kept[number] for number in {self._low, self._high}) if extent]
        if not extents:
            return None
        y_first, y_last, x_first, x_last = zip(*extents, strict=True)
        _, y_map, x_map = self.maps
        rows = slice(*y_map.targets_of(min(y_first), max(y_last)))
        columns = slice(*x_map.targets_of(min(x_first), max(x_last)))
        # A coarser grid may have no voxel that the foreground has a part in.
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None

    def classes(self, box: Box) -> Iterator[Tensor]:
        """The logits of each class in a part of the target plane, (y, x), float32."""
        low, high = self._kept[self._low][0], self._kept[self._high][0]
        y_map, x_map = (axis.to(low.device) for axis in self.maps[1:])
        rows, columns = y_map.sources_of(box[0]), x_map.sources_of(box[1])
        for below, above in zip(low[:, rows, columns], high[:, rows, columns], strict=True):
            values = below.float()
            if self._low != self._high:
                values = values.lerp(above.float(), self._weight)
            values = y_map.interpolate(x_map.interpolate(values, 1, box[1]), 0, box[0])
            yield values.to(below.dtype).float() if self.rounds else values


def _foreground_extent(plane: Tensor, has_regions: bool) -> Extent | None:
    """First and last row and column of the foreground in a source plane; None where there is none."""
    plane = plane.float()
    foreground = plane.amax(0) > 0 if has_regions else plane[1:].amax(0) > plane[0]
    y, x = (foreground.any(axis).nonzero().flatten() for axis in (1, 0))
    return (int(y[0]), int(y[-1]), int(x[0]), int(x[-1])) if len(y) else None


def _decide(planes: Iterator[Tensor], has_regions: bool, count: int) -> Tensor:
    """The number of the largest plane at each voxel, or with regions that of the last one above 0 plus 1.

    ``count`` numbers are possible.
    """
    first = next(planes)
    best = torch.zeros_like(first) if has_regions else first
    kind = torch.uint8 if count <= 256 else torch.int32
    decided = (first > best).to(kind)
    for number, plane in enumerate(planes, 1):
        above = (plane > best).to(kind)
        decided = torch.maximum(decided, above.mul_(number + has_regions))  # later numbers are larger
        if not has_regions:
            best = torch.maximum(best, plane)
    return decided
