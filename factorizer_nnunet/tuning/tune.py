"""Check the request, measure and compare the settings, choose one, and write the derived model folder."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.exported_model import check_has_validation
from factorizer_nnunet.nnunet.inference_settings import ITERATIONS_VARIABLE, SHIFTS_VARIABLE, settings_from_environment
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL, ModelFolder
from factorizer_nnunet.nnunet.model_name import short_trainer
from factorizer_nnunet.prediction.devices import chosen_device
from factorizer_nnunet.prediction.model import TrainedModel, load_model
from factorizer_nnunet.tuning.cases import ValidationCases
from factorizer_nnunet.tuning.derive import derived_folder, derived_plans, write_derived
from factorizer_nnunet.tuning.figure import draw
from factorizer_nnunet.tuning.fold_choice import check_choice, default_folds
from factorizer_nnunet.tuning.measure import Log, measure
from factorizer_nnunet.tuning.search_space import PredictionSettings, SearchSpace
from factorizer_nnunet.tuning.selection import DEFAULT_TOLERANCE, Comparison, Row, choose, compare
from factorizer_nnunet.tuning.table import as_json, page, table

REPORTS = "tune_inference"  # folder next to the models of a data set
_MEASUREMENTS, _PAGE, _NUMBERS, _FIGURE = "measurements.jsonl", "tune_inference.md", "tune_inference.json", "pareto.png"


@dataclass(frozen=True, kw_only=True)
class TuningRequest:
    """What to tune, and how."""

    model: Path  # TRAINER__PLANS__CONFIGURATION
    folds: tuple[str, ...] | None = None  # whose validation cases are predicted; None: all of the folder
    checkpoint: str = CHECKPOINT_FINAL  # file name in each fold
    device: str = "cuda"
    search_space: SearchSpace = SearchSpace()
    max_cases: int | None = None  # of each fold, the first ones by name
    tolerance: float = DEFAULT_TOLERANCE  # mean Dice that the chosen setting may lose
    plans_name: str | None = None  # of the derived folder; None: the model's with _fast
    measure_only: bool = False  # write no derived folder
    report: Path | None = None  # for measurements, page and plot; None: tune_inference next to the model
    trusted: bool = False  # whether code in checkpoints may be run
    progress_bar: bool = True


@dataclass(frozen=True, kw_only=True)
class TuningOutcome(Comparison):
    """The comparison, the folder of its page, and the model folder that was written, if any."""

    report: Path
    derived: Path | None  # None if it was not requested, or if no faster setting was good enough

    @property
    def page(self) -> Path:
        """The comparison of all settings."""
        return self.report / _PAGE

    @property
    def table(self) -> str:
        """The settings that no other beats, as Markdown."""
        return table(self, best_only=True)


def tune(request: TuningRequest) -> TuningOutcome:
    """Tune a model; run again after an interruption, it resumes.

    Raises:
        UserError: the request cannot be fulfilled, before anything is written; or the file system refused.
    """
    _check_options(request)
    device = chosen_device(request.device)
    check_has_validation(request.model)
    folds = request.folds or default_folds(request.model)
    model = load_model(request.model, folds, request.checkpoint, request.trusted)
    if not isinstance(model.network, Factorizer):
        raise UserError(
            f"{request.model} is a {type(model.network).__name__}, not a Factorizer: it has no iterations and shifts "
            "to choose. Name a model that was trained with nnUNetTrainerFactorizer or with our plans"
        )
    config = model.network.config
    settings = request.search_space.settings(config, model.first.mirroring_axes)
    plans_name = request.plans_name or f"{model.plans.plans_name}_fast"
    target = None if request.measure_only else derived_folder(model, plans_name)
    complete = model if request.measure_only else _with_all_folds(request, model)
    cases = ValidationCases(model)
    names = {fold: cases.of_fold(fold)[: request.max_cases] for fold in folds}
    versions = {fold: {case: cases.version(case) for case in own} for fold, own in names.items()}
    report = request.report or model.folder.absolute().parent / REPORTS / model.folder.absolute().name
    identity = _identity(request, model)
    _make_folder(report)
    with file_lock(report / ".lock", f"another tune-inference is writing {report}; wait until it ends"):
        log = Log(report / _MEASUREMENTS, identity)
        measure(model, cases, versions, settings, device, log, request.progress_bar)
        found = _compare_and_write(request, model, versions, settings, log)
    setting = found.chosen.setting
    if setting == found.reference:
        target = None
    if target is not None:
        plans = derived_plans(complete, config, setting, plans_name)
        write_derived(complete, plans, setting, target, request.checkpoint, _record(found.chosen))
    return TuningOutcome(**vars(found), report=report, derived=target)


def _compare_and_write(
    request: TuningRequest,
    model: TrainedModel,
    versions: Mapping[str, Mapping[str, str]],
    settings: Sequence[PredictionSettings],
    log: Log,
) -> Comparison:
    """Compare the settings on the requested cases and write plot, numbers and page next to the log."""
    wanted = {(model.folds[fold].digest, *one) for fold, own in versions.items() for one in own.items()}
    measurements = [m for m in log.measurements if (m.checkpoint, m.case, m.data) in wanted]
    if all(value is None for m in measurements for value in m.dice.values()):
        raise UserError(
            f"the {len(measurements) // len(settings)} measured cases contain no region, nor do their predictions, so "
            "there is no Dice to compare. Measure more cases, with a larger --cases or other folds with -f"
        )
    rows = compare(measurements, settings)
    found = Comparison(rows=rows, reference=settings[0], chosen=choose(rows, request.tolerance, settings[0]))
    rest_seconds = sum(m.rest_seconds for m in measurements) / len(measurements)
    report = log.file.parent
    try:
        draw(found, report / _FIGURE)
        write_text_atomically(report / _NUMBERS, as_json(found, log.identity))
        summary = _summary(model, versions, log.identity)
        write_text_atomically(
            report / _PAGE, page(found, short_trainer(model.first.trainer_name), summary, rest_seconds, _FIGURE)
        )
    except OSError as error:
        raise UserError(
            f"cannot write in {report}: {error.strerror}. Free some space there, then run the same command again: the "
            "measurements are kept"
        ) from error
    return found


def _check_options(request: TuningRequest) -> None:
    if settings_from_environment().are_set:
        raise UserError(
            f"{ITERATIONS_VARIABLE} or {SHIFTS_VARIABLE} is set, so the model would not be measured as it was trained. "
            f"Run: unset {ITERATIONS_VARIABLE} {SHIFTS_VARIABLE}"
        )
    if not 0 <= request.tolerance < 1:
        raise UserError(f"--tolerance {request.tolerance} must be a loss of Dice of at least 0, such as 0.002")
    check_choice(request.folds, request.max_cases)


def _with_all_folds(request: TuningRequest, model: TrainedModel) -> TrainedModel:
    """The model with every fold of its folder that has the checkpoint, measured or not."""
    existing = [fold.name for fold in ModelFolder(request.model).folds(request.checkpoint)]
    if set(existing) == set(model.folds):
        return model
    return load_model(request.model, existing, request.checkpoint, request.trusted)


def _identity(request: TuningRequest, model: TrainedModel) -> dict[str, Any]:
    """What all measurements of a report have in common, including what times depend on."""
    return {
        "model": model.folder.absolute().name,
        "machine": platform.node(),
        "device": torch.cuda.get_device_name() if request.device == "cuda" else request.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "factorizer_nnunet": __version__,
    }


def _make_folder(report: Path) -> None:
    try:
        report.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {report}: {error.strerror}. Name another folder with --report") from error
    if not os.access(report, os.W_OK | os.X_OK):
        raise UserError(f"no permission to write in {report}. Name another folder with --report")
    foreign = [name for name in (_PAGE, _NUMBERS, _FIGURE) if (report / name).exists()]
    if foreign and not (report / _MEASUREMENTS).exists():
        raise UserError(
            f"{report} has {', '.join(foreign)}, but no {_MEASUREMENTS}, so tune-inference did not write it. Name "
            "another folder with --report"
        )


def _summary(model: TrainedModel, cases: Mapping[str, Sized], identity: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{len(own)} of fold {fold}" for fold, own in cases.items())
    threads = f", threads: {identity['threads']}" if identity["device"] == "cpu" else ""
    return (
        f"{model.folder.absolute().name} of {model.plans.dataset_name}, validation cases: {counts}; "
        f"on {identity['device']}{threads}, torch {identity['torch']}."
    )


def _record(row: Row) -> dict[str, Any]:
    content = asdict(row)
    return {key: content[key] for key in ("dice", "change", "worst_change", "seconds", "speed_up")}
