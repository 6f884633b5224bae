"""A loaded model that explains cases: predict, record the components, assess them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.explain.components import Component, NMFLayer, check_heads, find_layers, select_layers
from factorizer_nnunet.explain.deletion import ClassChange, class_changes
from factorizer_nnunet.explain.explanation import Assessment, Explanation
from factorizer_nnunet.explain.geometry import CaseGeometry, Volume
from factorizer_nnunet.explain.predictor import RecordingPredictor
from factorizer_nnunet.explain.ranking import bin_numbers, label_histograms, separations
from factorizer_nnunet.explain.recorder import Recorder
from factorizer_nnunet.explain.threads import in_threads
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.prediction.model import TrainedModel
from factorizer_nnunet.prediction.segmentation import Output, segmentation_of
from factorizer_nnunet.prediction.sliding_window import check_logits
from factorizer_nnunet.prediction.work import preprocess

OnMap = Callable[[Component, Volume], None]


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """What to explain, and how to predict."""

    stages: tuple[str, ...] = ()  # such as encoder-3; all if empty
    heads: tuple[int, ...] = ()  # counted from 1; all if empty
    with_loadings: bool = False  # also keep the columns of U, in space
    deletion: int = 0  # how many of the best components of each class and layer the deletion test covers
    tile_step_size: float | None = None  # of the sliding window, as a fraction of the patch; None: the model's
    use_mirroring: bool = True  # average over mirrored images if the training mirrored


@dataclass(frozen=True)
class Explainer:
    """A model ready to explain cases by its selected layers."""

    model: TrainedModel
    predictor: RecordingPredictor
    layers: list[NMFLayer]
    options: ExplainOptions

    def __call__(
        self, case: ImageCase, truth: Path | None = None, *, folder: Path | None = None, on_map: OnMap | None = None
    ) -> Explanation:
        """Predict and explain a case.

        Args:
            case: its files.
            truth: its true segmentation, on the grid of the image.
            folder: for the maps' files while the explanation is used; by default the system's temporary folder.
            on_map: called with each component and its map on the original grid, from several threads.
        """
        model = self.model
        image = preprocess(case, [model.description])
        (data,), (properties,) = image.data, image.properties
        preprocessed = torch.from_numpy(data)
        temporary = tempfile.TemporaryDirectory(prefix=".maps", dir=folder)
        recorder = Recorder(self.layers, Path(temporary.name), self.options.with_loadings)
        with self.predictor.recording(recorder):
            prediction = self._segmentation(preprocessed, properties)
        patch = tuple(model.configuration.patch_size)
        reader = model.plans.image_reader_writer_class()
        explanation = Explanation(
            case=case.name,
            image=_x_first(reader.read_images([str(file) for file in case.files])[0]),
            prediction=prediction,
            truth=None if truth is None else _x_first(reader.read_seg(str(truth))[0][0]).astype(np.int64),
            classes=model.dataset.regions,
            ignored=model.dataset.ignore_label,
            geometry=CaseGeometry.of(properties, data.shape[1:], model.plans.transpose_backward),
            patch=(1,) * (data.ndim - 1 - len(patch)) + patch,
            properties=properties,
            records=recorder.records,
            warnings=image.warnings,
            folder=temporary,
        )
        components = [component for layer in self.layers for component in layer.components(self.options.heads)]
        assessments = in_threads(
            lambda component: _assess(explanation, component, on_map), components, explanation.bytes_per_map
        )
        return self._with_deletion(replace(explanation, assessments=assessments), preprocessed)

    def _segmentation(self, data: torch.Tensor, properties: Mapping[str, Any]) -> np.ndarray:
        """Predict label values, (x, y, z) on the grid of the original image."""
        # Not ``predict_logits_from_preprocessed_data``: it loads weights first and so would undo a deletion.
        logits = check_logits(self.predictor.predict_sliding_window_return_logits(data).cpu())
        return _x_first(segmentation_of(Output(logits.unbind(1), logits.shape[1:], properties, self.model.description)))

    def _with_deletion(self, explanation: Explanation, data: torch.Tensor) -> Explanation:
        """The same explanation with the deletion test of the heads of the best components."""
        layers = {layer.name: layer for layer in self.layers}
        changes: dict[tuple[str, int], dict[str, ClassChange]] = {}
        for one in explanation.top_of_all(self.options.deletion):
            layer, head = one.component.layer, one.component.head
            if (layer, head) in changes:
                continue
            with layers[layer].mixer.without_head(head - 1):
                without = self._segmentation(data, explanation.properties)
            changes[layer, head] = class_changes(
                explanation.prediction,
                without,
                explanation.truth,
                explanation.classes,
                explanation.geometry.grid.voxel_mm3,
                explanation.ignored,
            )
        tested = [
            replace(one, deletion=changes.get((one.component.layer, one.component.head)))
            for one in explanation.assessments
        ]
        return replace(explanation, assessments=tested)


def build_explainer(model: TrainedModel, device: torch.device, options: ExplainOptions) -> Explainer:
    """An explainer of a loaded model's first fold.

    Raises:
        UserError: the model is not a Factorizer, continues a previous stage, or lacks a stage or head.
    """
    if model.configuration.previous_stage_name is not None:
        raise UserError(
            f"{model.first.configuration} continues a previous stage, whose output explain does not take. Explain a "
            "model of a single stage, such as 3d_fullres"
        )
    layers = select_layers(find_layers(model.network, model.folder), options.stages)
    check_heads(layers, options.heads)
    step = model.tile_step_size if options.tile_step_size is None else options.tile_step_size
    predictor = model.predictor(
        device,
        tile_step_size=step,
        use_mirroring=options.use_mirroring,
        on_device=device.type == "cuda",
        predictor_class=RecordingPredictor,
    )
    predictor.network = model.network  # not the one that nnU-Net may have compiled: hooks must see the blocks
    return Explainer(model, predictor, layers, options)


def _assess(explanation: Explanation, component: Component, on_map: OnMap | None) -> Assessment:
    record = explanation.records[component.layer]
    volume = explanation.map(component)
    if on_map is not None:
        on_map(component, volume)
    box, classes, truth = explanation.geometry.box_xyz, explanation.classes, explanation.truth
    binned = bin_numbers(volume.values[box])
    index = record.index(component)
    energy, head_energy = float(record.energy[index]), float(record.head_energy[component.head - 1])
    return Assessment(
        component=component,
        energy_share=energy / (float(record.head_energy.sum()) or 1.0),
        head_share=energy / head_energy if head_energy else 0.0,
        mean_loading=tuple((record.mean_loading[index] / (energy or 1.0)).tolist()),
        largest=float(volume.values.max()),
        predicted=separations(label_histograms(binned, explanation.prediction[box]), classes),
        true=None if truth is None else separations(label_histograms(binned, truth[box], explanation.ignored), classes),
    )


def _x_first(array: np.ndarray) -> np.ndarray:
    """One of nnU-Net's arrays (…, z, y, x), with x first."""
    return np.swapaxes(array, -1, -3)
