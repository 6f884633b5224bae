"""AUC of raw feature channels of nnU-Net's U-Net, through the same blending and the same grid as components."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from factorizer_nnunet.explain.blending import BlendedMaps, PatchPlace
from factorizer_nnunet.explain.case import classes_of
from factorizer_nnunet.explain.predictor import build_predictor
from factorizer_nnunet.explain.ranking import label_histograms, levels, separations
from factorizer_nnunet.explain.space import CaseSpace
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.prediction.model import TrainedModel
from factorizer_nnunet.prediction.work import preprocess


class ChannelRecorder:
    """The outputs of stages, patch by patch, in the place of ``explain.recorder.Recorder``."""

    def __init__(self, stages: dict[str, nn.Module], folder: Path) -> None:
        self.maps: dict[str, BlendedMaps] = {}
        self._stages = stages
        self._folder = folder
        self._size: tuple[int, ...] = ()
        self._gaussian: Tensor | None = None
        self._place: PatchPlace | None = None

    def begin(self, size: Sequence[int], gaussian: Tensor) -> None:
        self._size, self._gaussian = tuple(size), gaussian

    def next_patch(self, place: PatchPlace) -> None:
        self._place = place

    def attach(self) -> list[torch.utils.hooks.RemovableHandle]:
        return [stage.register_forward_hook(self._hook(name)) for name, stage in self._stages.items()]

    def _hook(self, name: str):
        def hook(stage: nn.Module, inputs: tuple, output: Tensor) -> None:
            if name not in self.maps:
                stride = [a // b for a, b in zip(self._place.sizes, output.shape[2:], strict=True)]
                file = self._folder / f"{name}.npy"
                self.maps[name] = BlendedMaps(file, output.shape[1], self._size, stride)
            self.maps[name].add(output[0], self._place, self._gaussian)

        return hook


def channel_aucs(model: TrainedModel, case: ImageCase, truth: Path) -> dict[str, dict[str, float | None]]:
    """By channel, such as ``encoder-3 channel 7``, and class."""
    network = model.network
    decoder = network.decoder.stages
    stages = {f"encoder-{i}": stage for i, stage in enumerate(network.encoder.stages, 1)}
    stages |= {f"decoder-{len(decoder) - i}": stage for i, stage in enumerate(decoder)}  # they begin at the lowest
    data, properties = preprocess(case, model.plans, model.settings, model.description)
    predictor = build_predictor(model, torch.device("cpu"), 0.5, use_mirroring=False)
    labels = model.plans.image_reader_writer_class().read_seg(str(truth))[0][0].astype(np.int64).swapaxes(0, 2)
    space = CaseSpace.of(properties, data.shape[1:], model.plans.transpose_backward)
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        predictor.recorder = recorder = ChannelRecorder(stages, Path(folder))
        handles = recorder.attach()
        predictor.predict_sliding_window_return_logits(torch.from_numpy(data))
        for handle in handles:
            handle.remove()
        for name, maps in recorder.maps.items():
            for channel in range(len(maps)):
                values = space.from_stage(maps.mean(channel), maps.stride, model.settings.patch_size)
                binned = levels(values[space.box_xyz])
                found = separations(label_histograms(binned, labels[space.box_xyz]), classes_of(model.description))
                result[f"{name} channel {channel + 1}"] = {key: one.auc for key, one in found.items()}
    return result
