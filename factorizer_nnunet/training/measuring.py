"""A trainer that measures what its parts take, and is then as it was.

Some iterations are run; then weights, optimizer and random state are as before. The final validation is estimated from
one tile of the sliding window and the export of one case.
"""

from __future__ import annotations

import contextlib
import copy
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from factorizer_nnunet.core.process_identity import process_age
from factorizer_nnunet.core.processes import core_count
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_BEST
from factorizer_nnunet.nnunet.tiles import num_tiles
from factorizer_nnunet.training.random_state import random_state, restore_random_state
from factorizer_nnunet.training.ranks import largest_of_all_ranks
from factorizer_nnunet.training.resumable import ResumableTrainer
from factorizer_nnunet.training.stepping import SteppingTrainer
from factorizer_nnunet.training.time_plan import MeasuredTimes

_SHARE = 0.01  # of the time, for each of warm-up and measurement of training and of validation steps
_FEWEST, _MOST = 2, 50  # steps that are measured


class MeasuringTrainer(ResumableTrainer):
    """Can measure its steps, the end of an epoch and the final validation."""

    # When this module is imported, all that a worker process of nnU-Net imports has been, too.
    _import_seconds = process_age()
    _started = time.monotonic() - _import_seconds

    def _measure(self, minutes: float) -> MeasuredTimes:
        """Measure steps and the final validation of a training of ``minutes``; the same in all processes."""
        limit = 60 * minutes * _SHARE
        with self._undone():
            self.network.train()
            step = self._seconds_of(lambda: SteppingTrainer.train_step(self, next(self.dataloader_train)), limit)
            with torch.no_grad():
                self.network.eval()
                validation = self._seconds_of(
                    lambda: nnUNetTrainer.validation_step(self, next(self.dataloader_val)), limit
                )
                final = largest_of_all_ranks(self._seconds_of_final_validation(), self.device)
        epoch_end = largest_of_all_ranks(self._seconds_of_epoch_end(), self.device)
        spent = largest_of_all_ranks(time.monotonic() - self._started, self.device)
        return MeasuredTimes(spent=spent, step=step, validation_step=validation, epoch_end=epoch_end, final=final)

    def _seconds_of(self, step: Callable[[], Any], limit: float) -> float:
        """The mean time of a step in ``limit`` seconds, when batches that were prepared beforehand are used up."""
        self._repeat(step, max(_FEWEST, 2 * get_allowed_n_proc_DA()), limit)
        count, seconds = self._repeat(step, _MOST, limit)
        return seconds / count

    def _repeat(self, step: Callable[[], Any], most: int, limit: float) -> tuple[int, float]:
        """Run at least ``_FEWEST`` and at the most ``most`` steps in ``limit`` seconds: how many, and their time."""
        start = time.monotonic()
        for count in range(1, most + 1):
            step()
            seconds = largest_of_all_ranks(time.monotonic() - start, self.device)
            if count >= _FEWEST and seconds > limit:
                break
        return count, seconds

    @contextlib.contextmanager
    def _undone(self) -> Iterator[None]:
        """Restore weights, optimizer, scaler and random state after the block."""
        parts = [part for part in (self.network, self.optimizer, self.grad_scaler) if part is not None]
        before = [copy.deepcopy(part.state_dict()) for part in parts]
        random = random_state(self.device)
        yield
        for part, state in zip(parts, before, strict=True):
            part.load_state_dict(state)
        self.optimizer.zero_grad(set_to_none=True)
        self.lr_scheduler.step(self.current_epoch)
        restore_random_state(random, self.device)

    def _seconds_of_epoch_end(self) -> float:
        logger = LocalLogger()
        logger.load_checkpoint({key: [0.5, 0.5] for key in logger.get_checkpoint()})
        with tempfile.TemporaryDirectory() as folder:
            logger.plot_progress_png(folder)  # the first plot looks for fonts
            start = time.monotonic()
            logger.plot_progress_png(folder)
            self.save_checkpoint(str(Path(folder) / CHECKPOINT_BEST))
            return time.monotonic() - start

    def _seconds_of_final_validation(self) -> float:
        """Time of predicting the cases of this process and of writing the last one."""
        _, cases = self.do_split()
        cases = cases[self.local_rank :: torch.distributed.get_world_size()] if self.is_ddp else cases
        dataset = self.dataset_class(
            self.preprocessed_dataset_folder,
            cases,
            folder_with_segs_from_previous_stage=self.folder_with_segs_from_previous_stage,
        )
        shapes = {case: dataset.load_case(case)[0].shape[1:] for case in dataset.identifiers}
        if not shapes:
            return 0.0
        predict = sum(map(self._number_of_tiles, shapes.values())) * self._seconds_of_tile()
        typical = sorted(shapes, key=lambda case: math.prod(shapes[case]))[len(shapes) // 2]
        export = self._seconds_of_export(shapes[typical], dataset.load_case(typical)[3])
        exports_at_once = min(default_num_processes, core_count())
        # Two pools are started, for the export and for the scores, whose processes import what this one has imported.
        pools = 2 * self._import_seconds * max(1.0, default_num_processes / core_count())
        return max(predict, len(shapes) * export / exports_at_once) + export + pools

    def _number_of_tiles(self, shape: tuple[int, ...]) -> int:
        """Positions of the sliding window in an image of ``shape`` voxels; a 2D network goes through each slice."""
        return num_tiles(shape, self.configuration_manager.patch_size, 0.5)

    def _seconds_of_tile(self) -> float:
        """Time of one tile with its mirrored passes, as nnU-Net's validation predicts it."""
        predictor = nnUNetPredictor(perform_everything_on_device=True, device=self.device, allow_tqdm=False)
        self.set_deep_supervision_enabled(False)
        predictor.manual_initialization(
            self.network,
            self.plans_manager,
            self.configuration_manager,
            None,
            self.dataset_json,
            type(self).__name__,
            self.inference_allowed_mirroring_axes,
        )
        patch = self.configuration_manager.patch_size
        tile = torch.zeros(self.num_input_channels, *[1] * (3 - len(patch)), *patch)
        predictor.predict_sliding_window_return_logits(tile)  # the first one compiles and tunes
        start = time.monotonic()
        predictor.predict_sliding_window_return_logits(tile)
        seconds = time.monotonic() - start
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        return seconds

    def _seconds_of_export(self, shape: tuple[int, ...], properties: dict[str, Any]) -> float:
        """Time of resampling and writing one case in this process."""
        logits = torch.zeros(self.label_manager.num_segmentation_heads, *shape)
        managers = (self.configuration_manager, self.plans_manager, self.dataset_json)
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            export_prediction_from_logits(logits, properties, *managers, str(Path(folder) / "case"))
        return time.monotonic() - start
