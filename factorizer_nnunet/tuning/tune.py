"""Measure, compare, choose, and write the derived model folder; what can be checked is, before the first case."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import file_lock, write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.inference_settings import ITERATIONS_VARIABLE, SHIFTS_VARIABLE, settings_from_environment
from factorizer_nnunet.prediction.devices import chosen_device
from factorizer_nnunet.prediction.model import TrainedModel, load_model
from factorizer_nnunet.tuning.cases import ValidationCases
from factorizer_nnunet.tuning.derive import derived_folder, write_derived
from factorizer_nnunet.tuning.figure import draw
from factorizer_nnunet.tuning.measure import Log, measure
from factorizer_nnunet.tuning.selection import DEFAULT_TOLERANCE, Row, choose, compare
from factorizer_nnunet.tuning.settings import Choices, Setting
from factorizer_nnunet.tuning.table import as_json, best_rows, page, table

REPORTS = "tune_inference"  # folder beside the models of a data set
_MEASUREMENTS, _PAGE, _NUMBERS, _FIGURE = "measurements.jsonl", "tune_inference.md", "tune_inference.json", "pareto.png"


@dataclass(frozen=True, kw_only=True)
class TuningRequest:
    """What to tune, and how.

    Attributes:
        model: folder ``TRAINER__PLANS__CONFIGURATION``.
        folds: whose validation cases are predicted; None: all of the folder.
        checkpoint: file name in each fold.
        device: ``cuda``, ``cpu`` or ``mps``.
        choices: what is compared.
        most_cases: of each fold, the first ones by name; None: all.
        tolerance: of mean Dice that the chosen setting may lose.
        plans_name: of the derived folder; None: the model's with ``_fast``.
        only_measure: write no derived folder.
        report: folder for measurements, page and plot; None: ``tune_inference`` beside the model.
        trusted: whether code in checkpoints may be run.
        progress_bar: whether one is shown.
    """

    model: Path
    folds: tuple[str, ...] | None = None
    checkpoint: str = "checkpoint_final.pth"
    device: str = "cuda"
    choices: Choices = Choices()
    most_cases: int | None = None
    tolerance: float = DEFAULT_TOLERANCE
    plans_name: str | None = None
    only_measure: bool = False
    report: Path | None = None
    trusted: bool = False
    progress_bar: bool = True


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What came of it.

    Attributes:
        rows: of all settings, the fastest first.
        reference: the stock command's setting.
        chosen: the row of the setting that was taken.
        report: folder with page, plot, and numbers.
        derived: the model folder that was written; None if none was asked for, or nothing faster was good enough.
    """

    rows: list[Row]
    reference: Setting
    chosen: Row
    report: Path
    derived: Path | None

    @property
    def page(self) -> Path:
        """The comparison of all settings."""
        return self.report / _PAGE

    @property
    def table(self) -> str:
        """The settings that nothing beats, as Markdown."""
        return table(best_rows(self.rows, self.reference, self.chosen.setting), self.reference, self.chosen.setting)


def tune(request: TuningRequest) -> Tuned:
    """Tune a model; given again after a stop, it goes on.

    Raises:
        UserError: something asked for cannot be; before anything is written. Or the file system refused.
    """
    _check_options(request)
    device = chosen_device(request.device)
    folds = request.folds or _folds_of(request.model)
    model = load_model(request.model, folds, request.checkpoint, request.trusted)
    if not isinstance(model.network, Factorizer):
        raise UserError(
            f"{request.model} is a {type(model.network).__name__}, no Factorizer: it has no iterations and shifts "
            "to choose. Name a model of nnUNetTrainerFactorizer, or one on our plans"
        )
    settings = request.choices.settings(model.network.config, model.first.mirroring_axes)
    plans_name = request.plans_name or f"{model.plans.plans_name}_fast"
    target = None if request.only_measure else derived_folder(model, plans_name)
    whole = model if request.only_measure else _with_all_folds(request, model)
    cases = ValidationCases(model)
    names = {fold: cases.of_fold(fold)[: request.most_cases] for fold in folds}
    report = request.report or model.folder.absolute().parent / REPORTS / model.folder.absolute().name
    identity = _identity(request, model)
    _make(report)
    with file_lock(report / ".lock", f"another tune-inference is writing {report}; wait for its end"):
        log = Log(report / _MEASUREMENTS, identity)
        measure(model, cases, names, settings, device, log, request.progress_bar)
        wanted = {(model.folds[fold].digest, case) for fold in names for case in names[fold]}
        measurements = [m for m in log.measurements if (m.checkpoint, m.case) in wanted]
        if all(value is None for m in measurements for value in m.dice.values()):
            raise UserError(
                f"no region is in the {len(measurements) // len(settings)} cases measured, nor predicted there: there "
                "is no Dice to go by. Measure more, with a larger --cases or other folds with -f"
            )
        rows = compare(measurements, settings)
        chosen = choose(rows, request.tolerance, settings[0])
        rest = sum(m.rest_seconds for m in measurements) / len(measurements)
        compared = (rows, settings[0], chosen.setting)
        try:
            draw(*compared, report / _FIGURE)
            write_text_atomically(report / _NUMBERS, as_json(*compared, identity))
            write_text_atomically(report / _PAGE, page(*compared, _measured(model, names, identity), rest, _FIGURE))
        except OSError as error:
            raise UserError(
                f"cannot write in {report}: {error.strerror}. Make room there; the same command goes on with what was "
                "measured"
            ) from error
    if target is not None and chosen.setting != settings[0]:
        write_derived(whole, chosen.setting, target, plans_name, request.checkpoint, _record(chosen))
    else:
        target = None
    return Tuned(rows=rows, reference=settings[0], chosen=chosen, report=report, derived=target)


def _check_options(request: TuningRequest) -> None:
    if settings_from_environment().are_set:
        raise UserError(
            f"{ITERATIONS_VARIABLE} or {SHIFTS_VARIABLE} is set: the model would not be measured as it was trained. "
            f"Run: unset {ITERATIONS_VARIABLE} {SHIFTS_VARIABLE}"
        )
    if not 0 <= request.tolerance < 1:
        raise UserError(f"--tolerance {request.tolerance} must be a loss of Dice of at least 0, such as 0.002")
    if request.most_cases is not None and request.most_cases < 1:
        raise UserError(f"--cases {request.most_cases} must be at least 1")
    folds = request.folds or ()
    if len(set(folds)) < len(folds):
        raise UserError(f"-f {' '.join(folds)}: name each fold once")
    wrong = [fold for fold in folds if fold != "all" and not fold.isdecimal()]
    if wrong:
        raise UserError(f"-f {wrong[0]}: a fold is a number")


def _folds_of(folder: Path) -> tuple[str, ...]:
    """All folds of a model folder but ``all``; fold 0 where there are none, which ``load_model`` then misses."""
    names = (path.name.removeprefix("fold_") for path in folder.glob("fold_*"))
    return tuple(sorted((name for name in names if name.isdecimal()), key=int)) or ("0",)


def _with_all_folds(request: TuningRequest, model: TrainedModel) -> TrainedModel:
    """The model with every fold of its folder that has the checkpoint, whether it was measured or not."""
    files = request.model.glob(f"fold_*/{request.checkpoint}")
    there = sorted(file.parent.name.removeprefix("fold_") for file in files)
    if set(there) == set(model.folds):
        return model
    return load_model(request.model, there, request.checkpoint, request.trusted)


def _identity(request: TuningRequest, model: TrainedModel) -> dict[str, Any]:
    """What all measurements of a report have in common; the time depends on the machine, too."""
    device = torch.cuda.get_device_name() if request.device == "cuda" else request.device
    return {
        "model": model.folder.absolute().name,
        "machine": platform.node(),
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "factorizer_nnunet": __version__,
    }


def _make(report: Path) -> None:
    try:
        report.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {report}: {error.strerror}. Name a folder of your own with --report") from error
    if not os.access(report, os.W_OK | os.X_OK):
        raise UserError(f"you may not write in {report}. Name a folder of your own with --report")


def _measured(model: TrainedModel, names: dict[str, list[str]], identity: dict[str, Any]) -> str:
    counts = ", ".join(f"{len(cases)} of fold {fold}" for fold, cases in names.items())
    threads = f", threads: {identity['threads']}" if identity["device"] == "cpu" else ""
    return (
        f"{model.folder.absolute().name} of {model.plans.dataset_name}, validation cases: {counts}; "
        f"on {identity['device']}{threads}, torch {identity['torch']}."
    )


def _record(row: Row) -> dict[str, Any]:
    content = asdict(row)
    return {key: content[key] for key in ("dice", "change", "worst_change", "seconds", "speed_up")}
