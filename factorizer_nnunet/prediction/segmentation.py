"""The segmentation of a case on the grid of its image, from the network's logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.label_decision import Source, decide_labels
from factorizer_nnunet.prediction.resampling import AxisMap, axis_maps, keeps_type


def segmentation_of(logits: np.ndarray, properties: Mapping[str, Any], model: ModelDescription) -> np.ndarray:
    """Labels as nnU-Net writes them, but without the resampled logits of all classes in memory.

    Where nnU-Net has been extended (a resampling function or label manager of its own in the plans), nnU-Net's own
    function does it.

    Args:
        logits: (classes, *spatial), on the preprocessed grid.
        properties: of the case, from preprocessing.
        model: which predicted.

    Returns:
        labels in the axis order of the image reader, uint8 or uint16.
    """
    maps, labels = _maps(logits, properties, model), model.labels
    if maps is None or type(labels) is not LabelManager:
        threads = torch.get_num_threads()
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, model.plans, model.configuration, labels, properties, num_threads_torch=threads
        )
    rounds = keeps_type(model.configuration.resampling_fn_probabilities)
    cropped = decide_labels([Source(torch.from_numpy(logits), maps, rounds)], labels)
    complete = np.zeros(properties["shape_before_cropping"], cropped.dtype)
    complete[tuple(slice(*bounds) for bounds in properties["bbox_used_for_cropping"])] = cropped
    return complete.transpose(model.plans.transpose_backward)


def _maps(logits: np.ndarray, properties: Mapping[str, Any], model: ModelDescription) -> tuple[AxisMap, ...] | None:
    target = properties["shape_after_cropping_and_before_resampling"]
    target_spacing = [properties["spacing"][axis] for axis in model.plans.transpose_forward]
    spacing = list(model.configuration.spacing)
    if len(spacing) < len(target):  # 2D: slices are not resampled
        spacing = [target_spacing[0], *spacing]
    resample = model.configuration.resampling_fn_probabilities
    return axis_maps(resample, logits.shape[1:], target, spacing, target_spacing)
