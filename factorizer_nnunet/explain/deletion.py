"""The deletion test: how the prediction changes when one head is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.evaluation.overlap import dice_of_regions
from factorizer_nnunet.evaluation.schemes import Labels


@dataclass(frozen=True)
class ClassChange:
    """Effect of a deletion on one class."""

    dice_with_prediction: float | None  # between the predictions without and with the head; None if both are empty
    volume_change_ml: float  # volume without the head minus volume with it
    dice_change: float | None  # of the Dice against the truth; None without a truth, or if it is empty


def class_changes(
    with_head: np.ndarray,
    without: np.ndarray,
    truth: np.ndarray | None,
    classes: Mapping[str, Labels],
    voxel_mm3: float,
    ignored: int | None = None,
) -> dict[str, ClassChange]:
    """Compare segmentations, label maps of the same shape, class by class.

    Voxels of the truth with the value ``ignored`` are left out of ``dice_change``.
    """
    dice = dice_of_regions(without, with_head, classes, None)
    true_dice = []
    if truth is not None:
        true_dice = [dice_of_regions(labels, truth, classes, ignored) for labels in (without, with_head)]
    changes = {}
    for name, values in classes.items():
        scores = [score for by_class in true_dice if (score := by_class[name]) is not None]
        voxels = [int(np.isin(labels, values).sum()) for labels in (without, with_head)]
        changes[name] = ClassChange(
            dice_with_prediction=dice[name],
            volume_change_ml=(voxels[0] - voxels[1]) * voxel_mm3 / 1000,
            dice_change=scores[0] - scores[1] if len(scores) == 2 else None,
        )
    return changes
