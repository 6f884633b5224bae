"""What a prediction is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.calibration.logit_scaling import LogitScaling
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.exported_model import is_exported
from factorizer_nnunet.nnunet.inference_settings import InferenceSettings, is_tile_step
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, CHECKPOINT_FINAL
from factorizer_nnunet.prediction.memory import PROCESS

_FIVE_FOLDS = ("0", "1", "2", "3", "4")  # nnU-Net's default


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """What to predict, with which model, and where to write it.

    Attributes:
        model: folder ``TRAINER__PLANS__CONFIGURATION``, or an exported model, folder or zip.
        ensemble_with: folders of other models; labels are decided by the mean of the probabilities of all models.
        images: folder with ``CASE_0000.ENDING``, ….
        out: output folder.
        folds: numbers, or ``all``; their outputs are averaged. None: all of an exported model, else 0 to 4.
        checkpoint: file name in each fold.
        device: ``cuda``, ``cpu`` or ``mps``.
        tile_step_size: of the sliding window, as a fraction of the patch, above 0 and at most 1; None: the model's.
        use_mirroring: average over mirrored images where the training mirrored.
        on_device: keep complete results on the GPU, too.
        save_probabilities: also write ``CASE.npz`` and ``CASE.pkl``, which ensembles need.
        preprocessing_processes, export_processes: number of worker processes; with 0, this process does the work; None:
            by the device and the number of cores.
        previous_stages: folder with the previous stage's predictions, for each model that is a cascade.
        trusted: whether code in checkpoints may be executed.
        inference_settings: iterations and shifts of a Factorizer.
        progress_bar: whether to show one.
        num_parts, part_id: predict every ``num_parts``-th case, starting with number ``part_id``.
        continue_prediction: take segmentations without a record of their images as complete.
        memory: GB that all processes may take together; None: what is free, less a reserve.
        skip_empty_tiles: tiles without any contrast are background without asking the network.
        sums_on_disk: folder for the sums of tiles; None: they are in memory.
        verbose: print the time of each stage of a case.
        postprocessing: postprocess by the rules that ``tune-postprocessing`` has put into the model's folder.
        quality: compare the passes of each case, see ``nnunet.pass_record``.
        uncertainty: also write maps, see ``prediction.uncertainty``.
        scalings: what calibrates the probabilities in these maps, by region.
    """

    model: Path
    ensemble_with: tuple[Path, ...] = ()
    images: Path
    out: Path
    folds: tuple[str, ...] | None = None
    checkpoint: str = CHECKPOINT_FINAL
    device: str = "cuda"
    tile_step_size: float | None = None
    use_mirroring: bool = True
    on_device: bool = True
    save_probabilities: bool = False
    preprocessing_processes: int | None = None
    export_processes: int | None = None
    previous_stages: tuple[Path, ...] = ()
    trusted: bool = False
    inference_settings: InferenceSettings = InferenceSettings()
    progress_bar: bool = True
    num_parts: int = 1
    part_id: int = 0
    continue_prediction: bool = False
    memory: float | None = None
    skip_empty_tiles: bool = False
    sums_on_disk: Path | None = None
    verbose: bool = False
    postprocessing: bool = True
    quality: bool = False
    uncertainty: bool = False
    scalings: Mapping[str, LogitScaling] = field(default_factory=dict)

    def folds_of(self, model: Path) -> tuple[str, ...] | None:
        """The folds of a model to predict with; None: all that it has."""
        return _FIVE_FOLDS if self.folds is None and not is_exported(model) else self.folds

    def check(self) -> None:
        """Check values that need nothing else to be known.

        Raises:
            UserError: one is impossible.
        """
        if self.out.resolve() == self.images.resolve():
            raise UserError(f"-o {self.out} is the folder of the images: name another, so that they stay apart")
        if self.tile_step_size is not None and not is_tile_step(self.tile_step_size):
            raise UserError(f"-step_size {self.tile_step_size} must be above 0 and at most 1; nnU-Net's is 0.5")
        if min(self.preprocessing_processes or 0, self.export_processes or 0) < 0:
            raise UserError("-npp and -nps must be 0 or more")
        if self.memory is not None and not (math.isfinite(self.memory) and self.memory > 0):
            raise UserError(f"--memory {self.memory:g} must be above 0, in GB")
        if self.memory is not None and self.memory * 1e9 <= PROCESS:
            raise UserError(f"--memory {self.memory:g}: PyTorch and nnU-Net alone take {PROCESS / 1e9:g} GB. Give more")
        if self.sums_on_disk is not None and not self.sums_on_disk.is_dir():
            raise UserError(f"--sums-on-disk {self.sums_on_disk}: this is not a folder. Create it, or name another")
        if not 0 <= self.part_id < self.num_parts:
            raise UserError(
                f"-part_id {self.part_id} and -num_parts {self.num_parts}: parts are counted from 0 to -num_parts - 1"
            )
        if self.ensemble_with and self.save_probabilities:
            raise UserError("--save_probabilities writes those of one model: leave it out, or --ensemble-with")
        if self.ensemble_with and self.uncertainty:
            raise UserError("--uncertainty writes maps of one model: leave it out, or --ensemble-with")
        if len({folder.resolve() for folder in (self.model, *self.ensemble_with)}) <= len(self.ensemble_with):
            raise UserError("--ensemble-with: name each model once")
        folds = _FIVE_FOLDS if self.folds is None else self.folds
        if not folds or len(set(folds)) < len(folds):
            raise UserError(f"-f {' '.join(folds)}: name each fold once")
        wrong = [fold for fold in folds if fold != ALL_CASES and not fold.isdecimal()]
        if wrong:
            raise UserError(f"-f {wrong[0]}: a fold is a number, or all")
