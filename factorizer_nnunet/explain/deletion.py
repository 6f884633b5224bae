"""The deletion test: what becomes of the prediction if what one head reconstructs is set to zero."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from factorizer_nnunet.evaluation.overlap import dice_of_regions
from factorizer_nnunet.explain.sites import Site


@dataclass(frozen=True)
class ClassChange:
    """What a deletion does to one class.

    Attributes:
        dice_with_prediction: of the class predicted without the head, and with it; None if both are empty.
        volume_change_ml: volume without the head minus that with it.
        dice_change: Dice with the truth without the head minus that with it; None without a truth, or if empty.
    """

    dice_with_prediction: float | None
    volume_change_ml: float
    dice_change: float | None


@contextlib.contextmanager
def head_deleted(site: Site, head: int) -> Iterator[None]:
    """Within the block, head ``head`` (counted from 1) of a site reconstructs nothing; all its columns, if several.

    Its columns of the projection that follows are set to zero, which is the same thing and holds on every route.
    """
    weight = site.block.mixer.out_proj.weight
    columns = slice((head - 1) * site.head_dim, head * site.head_dim)
    with torch.no_grad():
        kept = weight[:, columns].clone()
        weight[:, columns] = 0
        try:
            yield
        finally:
            weight[:, columns] = kept


def class_changes(
    with_head: np.ndarray,
    without: np.ndarray,
    truth: np.ndarray | None,
    classes: Mapping[str, Sequence[int]],
    voxel_mm3: float,
    ignored: int | None = None,
) -> dict[str, ClassChange]:
    """Compare segmentations, label values of one shape, class by class.

    Args:
        with_head, without: predictions.
        truth: its voxels of value ``ignored`` do not count in ``dice_change``.
        classes: label values of each.
        voxel_mm3: volume of a voxel.
        ignored: value of what nobody annotated, if there is one.
    """
    dice_with_prediction = dice_of_regions(without, with_head, classes, None)
    true_dice = None
    if truth is not None:
        true_dice = [dice_of_regions(labels, truth, classes, ignored) for labels in (without, with_head)]
    result = {}
    for name, values in classes.items():
        change = None
        if true_dice is not None and None not in (scores := [dice[name] for dice in true_dice]):
            change = scores[0] - scores[1]
        voxels = [int(np.isin(labels, values).sum()) for labels in (without, with_head)]
        volume_change_ml = (voxels[0] - voxels[1]) * voxel_mm3 / 1000
        result[name] = ClassChange(dice_with_prediction[name], volume_change_ml, change)
    return result
