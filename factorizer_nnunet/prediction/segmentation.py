"""The segmentation of a case on the grid of its image, from the network's logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.label_decision import Source, decide_labels
from factorizer_nnunet.prediction.resampling import AxisMap, axis_maps, keeps_type


@dataclass(frozen=True)
class Output:
    """What a model's network says about a case.

    Attributes:
        planes: logits, (classes, y, x) each, in the order of z.
        shape: of the preprocessed grid, (z, y, x).
        properties: of the case, from preprocessing.
        model: which predicted.
    """

    planes: Iterable[torch.Tensor]
    shape: Sequence[int]
    properties: Mapping[str, Any]
    model: ModelDescription

    @property
    def maps(self) -> tuple[AxisMap, ...] | None:
        """From the preprocessed grid to the cropped image, one for each axis; None where nnU-Net has been extended."""
        if type(self.model.labels) is not LabelManager:
            return None
        target = self.properties["shape_after_cropping_and_before_resampling"]
        target_spacing = [self.properties["spacing"][axis] for axis in self.model.plans.transpose_forward]
        spacing = list(self.model.configuration.spacing)
        if len(spacing) < len(target):  # 2D: slices are not resampled
            spacing = [target_spacing[0], *spacing]
        resample = self.model.configuration.resampling_fn_probabilities
        return axis_maps(resample, self.shape, target, spacing, target_spacing)

    def take_logits(self) -> np.ndarray:
        """All logits, (classes, *shape), from their planes, which can be taken only once."""
        logits = np.empty(0)
        for row, plane in enumerate(self.planes):
            if row == 0:
                logits = np.empty((len(plane), *self.shape), plane.cpu().numpy().dtype)
            logits[:, row] = plane.numpy(force=True)
        return logits


def segmentation_of(*outputs: Output) -> np.ndarray:
    """Labels as nnU-Net writes them, by one model or the mean of several, without the full-size logits of all classes.

    One model's segmentation is postprocessed by its rules, if it has some; they say nothing about a mean of models.
    Where nnU-Net has been extended (a resampling function or label manager of its own in the plans), nnU-Net's own
    functions do it, with all logits.

    Returns:
        labels in the axis order of the image reader, uint8 or uint16.
    """
    rules, properties = outputs[0].model.postprocessing, outputs[0].properties
    if rules is None or len(outputs) > 1:
        return _decided(outputs)
    return rules.cleaned(_decided([_shifted(outputs[0], rules.offsets())]), properties["spacing"])


def _shifted(output: Output, offsets: Sequence[float]) -> Output:
    """The output with an offset added to the logits of each class."""
    if not any(offsets):
        return output

    def planes() -> Iterator[torch.Tensor]:
        for plane in output.planes:
            yield plane + torch.tensor(offsets, dtype=plane.dtype, device=plane.device)[:, None, None]

    return replace(output, planes=planes())


def _decided(outputs: Sequence[Output]) -> np.ndarray:
    model, properties = outputs[0].model, outputs[0].properties
    sources = []
    for output in outputs:
        maps, rounds = output.maps, keeps_type(output.model.configuration.resampling_fn_probabilities)
        if maps is None:
            return _segmentation_by_nnunet(outputs)
        sources.append(Source(output.planes, maps, rounds))
    cropped = decide_labels(sources, model.labels)
    complete = np.zeros(properties["shape_before_cropping"], cropped.dtype)
    complete[tuple(slice(*bounds) for bounds in properties["bbox_used_for_cropping"])] = cropped
    return complete.transpose(model.plans.transpose_backward)


def _segmentation_by_nnunet(outputs: Sequence[Output]) -> np.ndarray:
    if len(outputs) == 1:
        return nnunet_export(outputs[0])
    labels, total = outputs[0].model.labels, np.zeros(())
    for output in outputs:
        total = total + nnunet_export(output, probabilities=True)[1] / len(outputs)
    return labels.convert_probabilities_to_segmentation(total.astype(np.float32))


def nnunet_export(output: Output, probabilities: bool = False) -> Any:
    """Labels by nnU-Net's own function, with all logits in full size; and the probabilities, if they are asked for."""
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        output.take_logits(),
        output.model.plans,
        output.model.configuration,
        output.model.labels,
        dict(output.properties),
        return_probabilities=probabilities,
        num_threads_torch=torch.get_num_threads(),
    )
