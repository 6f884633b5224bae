"""nnU-Net's predictor that tells where each patch lies; all this package takes for granted of its inside is here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from torch import Tensor

from factorizer_nnunet.explain.blending import PatchPlace
from factorizer_nnunet.explain.recorder import Recorder
from factorizer_nnunet.prediction.model import TrainedModel


class RecordingPredictor(nnUNetPredictor):
    """Predicts as nnU-Net does, patch by patch in the order of its sliding window, and tells a recorder."""

    recorder: Recorder | None = None
    _places: Iterator[PatchPlace] = iter(())

    def _internal_predict_sliding_window_return_logits(
        self, data: Tensor, slicers: Sequence[tuple], do_on_device: bool = True
    ) -> Tensor:
        # Called again from the first patch if the device's memory was too small: so is the recorder.
        if self.recorder is not None:
            # nnU-Net's own weights, but in full precision: in half of it the smallest are 0.
            gaussian = compute_gaussian(
                tuple(self.configuration_manager.patch_size), 1.0 / 8, 10, torch.float32, self.device
            )
            self.recorder.begin(data.shape[1:], gaussian)
            self._places = iter([_place(slicer) for slicer in slicers])
        return super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)

    def _internal_maybe_mirror_and_predict(self, x: Tensor) -> Tensor:
        if self.recorder is not None:
            self.recorder.next_patch(next(self._places))
        return super()._internal_maybe_mirror_and_predict(x)


def build_predictor(
    model: TrainedModel, device: torch.device, tile_step_size: float, use_mirroring: bool
) -> RecordingPredictor:
    """The predictor of the first fold of a model; never compiled, since hooks must see the blocks."""
    predictor = RecordingPredictor(
        tile_step_size=tile_step_size,
        use_mirroring=use_mirroring,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    arguments: tuple[Any, ...] = (model.description, model.first.trainer_name, model.first.mirroring_axes)
    predictor.manual_initialization(model.network, model.plans, model.settings, [model.first.weights], *arguments)
    predictor.network = model.network
    return predictor


def _place(slicer: tuple) -> PatchPlace:
    """Of a slicer (all channels, then a slice or, along the first axis of 2D, a number per axis)."""
    pairs = [(s, s + 1) if isinstance(s, int) else (s.start, s.stop) for s in slicer[1:]]
    return PatchPlace(tuple(a for a, _ in pairs), tuple(b - a for a, b in pairs))
