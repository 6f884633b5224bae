"""From logits on the network's grid to labels on the image's, row by row, without the full-size logits of all classes.

Rows are planes of the first axis. In each, one class after another is interpolated and compared with the best so far.
Only the box around the foreground is computed: where all source voxels around a target voxel decide for background, so
does every mean of them, also over several models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

from factorizer_nnunet.prediction.resampling import AxisMap

Box = tuple[slice, slice]  # rows and columns of a plane


@dataclass(frozen=True)
class Source:
    """A model's logits, and how they are resampled.

    Attributes:
        logits: (classes, z, y, x), floating point.
        maps: one for each spatial axis; those of several models lead to the same target grid.
        rounds: whether interpolated logits are rounded to the type of ``logits``, which decides some ties.
    """

    logits: Tensor
    maps: tuple[AxisMap, ...]
    rounds: bool = False


def decide_labels(sources: Sequence[Source], labels: LabelManager) -> np.ndarray:
    """Labels on the target grid: the most probable class, or regions above 0.5 in the order of ``regions_class_order``.

    Args:
        sources: of one model, or of several whose probabilities are averaged.
        labels: of the models.

    Returns:
        (z, y, x), uint8, or uint16 from 255 labels on, as nnU-Net stores them.
    """
    values = _label_values(labels)
    result = np.zeros([len(axis.low) for axis in sources[0].maps], values.dtype)
    extents = [_foreground_extents(source.logits, labels.has_regions) for source in sources]
    for row in range(len(result)):
        box = _target_box(sources, extents, row)
        if box is not None:
            result[row][box] = values[_decide_plane(sources, row, box, labels.has_regions).numpy(force=True)]
    return result


def _label_values(labels: LabelManager) -> np.ndarray:
    """The label of each decision: of the classes, or with regions 0 for none and the label of each region."""
    values = [0, *labels.regions_class_order] if labels.has_regions else labels.all_labels
    return np.array(values, np.uint8 if len(labels.foreground_labels) < 255 else np.uint16)


def _foreground_extents(logits: Tensor, has_regions: bool) -> list[tuple[int, int, int, int] | None]:
    """First and last row and column of the foreground in each plane of the source; None where there is none."""
    extents = []
    for row in range(logits.shape[1]):
        plane = logits[:, row].float()
        foreground = plane.amax(0) > 0 if has_regions else (plane[1:] > plane[0]).any(0)
        y, x = (foreground.any(axis).nonzero().flatten() for axis in (1, 0))
        extents.append((int(y[0]), int(y[-1]), int(x[0]), int(x[-1])) if len(y) else None)
    return extents


def _target_box(
    sources: Sequence[Source], extents: Sequence[Sequence[tuple[int, int, int, int] | None]], row: int
) -> Box | None:
    """The part of a target plane in which any model may see foreground."""
    bounds = []
    for source, extent in zip(sources, extents, strict=True):
        z_map, y_map, x_map = source.maps
        for z in {int(z_map.low[row]), int(z_map.high[row])}:
            if (found := extent[z]) is not None:
                bounds.append((*y_map.targets_of(*found[:2]), *x_map.targets_of(*found[2:])))
    if not bounds:
        return None
    y_start, y_stop, x_start, x_stop = zip(*bounds, strict=True)
    return slice(min(y_start), max(y_stop)), slice(min(x_start), max(x_stop))


def _decide_plane(sources: Sequence[Source], row: int, box: Box, has_regions: bool) -> Tensor:
    """Decisions in a part of a target plane: a class, or the last region above 0.5 plus 1, 0 for none."""
    if len(sources) == 1:
        return _decide(_planes(sources[0], row, box), 0.0 if has_regions else None)
    total: Tensor | None = None
    for source in sources:
        logits = torch.stack(list(_planes(source, row, box)))
        probabilities = logits.sigmoid() if has_regions else logits.softmax(0)
        total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return _decide(iter(total / len(sources)), 0.5 if has_regions else None)


def _decide(planes: Iterator[Tensor], threshold: float | None) -> Tensor:
    """The number of the largest plane at each voxel, or with a threshold that of the last one above it plus 1."""
    first = next(planes)
    best = first if threshold is None else torch.full_like(first, threshold)
    decided = (first > best).int()
    for number, plane in enumerate(planes, 1):
        above = (plane > best).int()
        decided = torch.maximum(decided, above.mul_(number + (threshold is not None)))  # later numbers are larger
        if threshold is None:
            best = torch.maximum(best, plane)
    return decided


def _planes(source: Source, row: int, box: Box) -> Iterator[Tensor]:
    """The logits of each class in a part of a target plane, (y, x), float32."""
    z_map, y_map, x_map = source.maps
    below, above = int(z_map.low[row]), int(z_map.high[row])
    precision = torch.float64 if source.rounds else torch.float32  # as nnU-Net, so that rounding gives the same
    for plane in source.logits:
        values = plane[below].to(precision)
        if above != below:
            values = values.lerp(plane[above].to(precision), float(z_map.weight[row]))
        values = y_map.interpolate(x_map.interpolate(values, 1, box[1]), 0, box[0])
        yield values.to(plane.dtype).float() if source.rounds else values
