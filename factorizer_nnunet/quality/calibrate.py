"""Calibrate a trained model on its out-of-fold cases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.calibration.calibration_file import (
    Calibration,
    calibration_file,
    read_calibration,
    write_calibration,
)
from factorizer_nnunet.calibration.fit import calibration_of
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.nnunet.inference_settings import InferenceSettings, is_tile_step
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL, RULES_KEY
from factorizer_nnunet.prediction.devices import chosen_device
from factorizer_nnunet.prediction.model import load_model, with_postprocessing
from factorizer_nnunet.quality.out_of_fold import (
    MEASUREMENTS_FILE,
    Work,
    expected_seconds,
    known_cases,
    predict_missing,
)
from factorizer_nnunet.tuning.cases import ValidationCases
from factorizer_nnunet.tuning.fold_choice import check_choice, default_folds


@dataclass(frozen=True, kw_only=True)
class CalibrationRequest:
    """What to calibrate, and how its cases are predicted.

    Attributes:
        model: folder ``TRAINER__PLANS__CONFIGURATION``.
        folds: whose validation cases are predicted; None: all numbered ones.
        checkpoint: file name in each fold.
        device: ``cuda``, ``cpu`` or ``mps``.
        use_mirroring, tile_step_size, inference_settings, postprocessing: as in the predictions to be judged.
        max_cases: of each fold, the first ones by name; None: all.
        trusted: whether code in checkpoints may be executed.
        progress_bar: whether to show one.
    """

    model: Path
    folds: tuple[str, ...] | None = None
    checkpoint: str = CHECKPOINT_FINAL
    device: str = "cuda"
    use_mirroring: bool = True
    tile_step_size: float | None = None
    inference_settings: InferenceSettings = InferenceSettings()
    postprocessing: bool = True
    max_cases: int | None = None
    trusted: bool = False
    progress_bar: bool = True

    def check(self) -> None:
        """Check values that need nothing else to be known.

        Raises:
            UserError: one is impossible.
        """
        if self.tile_step_size is not None and not is_tile_step(self.tile_step_size):
            raise UserError(f"-step_size {self.tile_step_size} must be above 0 and at most 1; nnU-Net's is 0.5")
        check_choice(self.folds, self.max_cases)


def calibrate(request: CalibrationRequest) -> Calibration:
    """Predict the validation cases that are not known yet, and write ``quality_calibration.json``.

    Raises:
        UserError: model or data cannot be used, before anything is predicted; or the file system refused.
    """
    request.check()
    device = chosen_device(request.device)
    folds = request.folds or default_folds(request.model, request.checkpoint)
    model = load_model(request.model, folds, request.checkpoint, request.trusted, request.inference_settings)
    model = with_postprocessing(model) if request.postprocessing else model
    cases = ValidationCases(model)
    names = {fold: cases.of_fold(fold)[: request.max_cases] for fold in folds}
    step = model.tile_step_size if request.tile_step_size is None else request.tile_step_size
    settings = pass_settings(request.use_mirroring, step, model.inference_settings)
    if (rules := model.description.postprocessing) is not None:
        settings[RULES_KEY] = rules.content()
    work = Work(model, cases, names, settings)
    file = model.folder / MEASUREMENTS_FILE
    with file_lock(model.folder / ".calibrate.lock", f"another calibrate is writing {file}; wait until it ends"):
        known = known_cases(file)
        wanted = [(fold, case) for fold in folds for case in names[fold]]
        missing = [(fold, case) for fold, case in wanted if work.key(fold, case) not in known]
        if missing:
            print(_announced(len(wanted), missing, expected_seconds(work, missing, device)), flush=True)
            predict_missing(work, missing, device, file, request.progress_bar)
            known = known_cases(file)
        found = [known[work.key(fold, case)] for fold, case in wanted]
        digests = {fold: model.folds[fold].digest for fold in folds}
        calibration = calibration_of(found, digests, work.settings)
        if (before := _cases_before(model.folder)) > len(found):
            print(f"note: this replaces a calibration on {before} cases by one on {len(found)}", flush=True)
        try:
            write_calibration(calibration, model.folder)
        except OSError as error:
            raise UserError(f"cannot write {calibration_file(model.folder)}: {error.strerror}") from error
    return calibration


def pass_settings(use_mirroring: bool, tile_step_size: float, inference: InferenceSettings) -> dict[str, Any]:
    """How cases are predicted, as far as it changes their passes; the names are those of a prediction's record."""
    return {
        "use_mirroring": use_mirroring,
        "tile_step_size": tile_step_size,
        "num_iters": inference.num_iters,
        "num_shifts": inference.num_shifts,
    }


def _cases_before(model: Path) -> int:
    """How many cases an existing calibration was made from; 0 if there is none, or it is of no use."""
    try:
        existing = read_calibration(model)
    except UserError:
        return 0
    return 0 if existing is None else sum(existing.num_cases.values())


def _announced(total: int, missing: list[tuple[str, str]], seconds: float) -> str:
    named = list(dict.fromkeys(fold for fold, _ in missing))
    folds = f"{'fold' if len(named) == 1 else 'folds'} {', '.join(named)}"
    before = f" ({total - len(missing)} were predicted before)" if total > len(missing) else ""
    time = count_of(round(seconds / 60), "minute") if seconds >= 90 else count_of(max(1, round(seconds)), "second")
    return (
        f"{count_of(len(missing), 'validation case')} of {folds}{before} will be predicted, each by the fold that "
        f"was not trained on it: about {time}"
    )
