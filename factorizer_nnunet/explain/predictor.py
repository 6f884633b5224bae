"""nnU-Net's predictor, recording each patch; everything explain assumes about its internals is here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from torch import Tensor

from factorizer_nnunet.explain.blending import PatchPosition
from factorizer_nnunet.explain.recorder import Recorder


class RecordingPredictor(nnUNetPredictor):
    """Predict as nnU-Net does, patch by patch in the order of its sliding window, and report each patch."""

    _recorder: Recorder | None = None
    _patches: Iterator[tuple[PatchPosition, Tensor]] = iter(())

    @contextlib.contextmanager
    def recording(self, recorder: Recorder) -> Iterator[None]:
        """Let ``recorder`` see all predictions made in this context."""
        handles = recorder.attach()
        self._recorder = recorder
        try:
            yield
        finally:
            self._recorder = None
            for handle in handles:
                handle.remove()

    def _internal_predict_sliding_window_return_logits(
        self, data: Tensor, slicers: Sequence[tuple], do_on_device: bool = True
    ) -> Tensor:
        # nnU-Net calls this again, from the first patch, if the device ran out of memory: so the record starts again.
        if self._recorder is not None:
            # nnU-Net's own weights, but in full precision: in half precision the smallest are 0.
            gaussian = compute_gaussian(
                tuple(self.configuration_manager.patch_size), 1.0 / 8, 10, torch.float32, self.device
            )
            self._recorder.begin(data.shape[1:])
            self._patches = iter([(_position(slicer), gaussian) for slicer in slicers])
        return super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)

    def _internal_maybe_mirror_and_predict(self, x: Tensor) -> Tensor:
        if self._recorder is not None:
            self._recorder.next_patch(*next(self._patches))
        return super()._internal_maybe_mirror_and_predict(x)


def _position(slicer: tuple) -> PatchPosition:
    """Position of a patch by its slicer: all channels, then a slice per axis (in 2D, an index along the first axis)."""
    bounds = [(s, s + 1) if isinstance(s, int) else (s.start, s.stop) for s in slicer[1:]]
    return PatchPosition(tuple(a for a, _ in bounds), tuple(b - a for a, b in bounds))
