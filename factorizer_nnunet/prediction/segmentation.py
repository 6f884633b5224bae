"""The segmentation of a case on the grid of its image, from the network's logits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.label_decision import Source, decide_labels
from factorizer_nnunet.prediction.resampling import AxisMap, axis_maps, keeps_type


def segmentation_of(
    planes: Iterable[torch.Tensor], shape: Sequence[int], properties: Mapping[str, Any], model: ModelDescription
) -> np.ndarray:
    """Labels as nnU-Net writes them, but without the logits of all classes in memory.

    Where nnU-Net has been extended (a resampling function or label manager of its own in the plans), nnU-Net's own
    function does it, with all logits.

    Args:
        planes: logits, (classes, y, x) each, in the order of z.
        shape: of the preprocessed grid, (z, y, x).
        properties: of the case, from preprocessing.
        model: which predicted.

    Returns:
        labels in the axis order of the image reader, uint8 or uint16.
    """
    maps, labels = maps_of(shape, properties, model), model.labels
    if maps is None:
        logits = logits_of(planes, shape)
        threads = torch.get_num_threads()
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, model.plans, model.configuration, labels, dict(properties), num_threads_torch=threads
        )
    rounds = keeps_type(model.configuration.resampling_fn_probabilities)
    cropped = decide_labels(Source(planes, maps, rounds), labels)
    complete = np.zeros(properties["shape_before_cropping"], cropped.dtype)
    complete[tuple(slice(*bounds) for bounds in properties["bbox_used_for_cropping"])] = cropped
    return complete.transpose(model.plans.transpose_backward)


def logits_of(planes: Iterable[torch.Tensor], shape: Sequence[int]) -> np.ndarray:
    """All logits, (classes, *shape), from their planes (classes, y, x)."""
    logits = np.empty(0)
    for row, plane in enumerate(planes):
        if row == 0:
            logits = np.empty((len(plane), *shape), plane.cpu().numpy().dtype)
        logits[:, row] = plane.numpy(force=True)
    return logits


def maps_of(shape: Sequence[int], properties: Mapping[str, Any], model: ModelDescription) -> tuple[AxisMap, ...] | None:
    """The maps from a preprocessed grid to the cropped image, for each axis; None where nnU-Net has been extended."""
    if type(model.labels) is not LabelManager:
        return None
    target = properties["shape_after_cropping_and_before_resampling"]
    target_spacing = [properties["spacing"][axis] for axis in model.plans.transpose_forward]
    spacing = list(model.configuration.spacing)
    if len(spacing) < len(target):  # 2D: slices are not resampled
        spacing = [target_spacing[0], *spacing]
    resample = model.configuration.resampling_fn_probabilities
    return axis_maps(resample, shape, target, spacing, target_spacing)
