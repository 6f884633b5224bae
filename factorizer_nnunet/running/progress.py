"""How far a training is: epoch, pseudo Dice, time left, read from nnU-Net's own log of the fold."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import duration
from factorizer_nnunet.nnunet.model_folder import FoldFolder
from factorizer_nnunet.nnunet.names import TRAINER
from factorizer_nnunet.nnunet.training_log import read_curve, training_logs
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.step import State, Step
from factorizer_nnunet.training.budget import Budget, budget_from_suffix
from factorizer_nnunet.training.time_plan import read_time_plan

DEFAULT_EPOCHS = 1000  # nnU-Net's
_RECENT = 20  # epochs from whose time that of the remaining ones is estimated


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a fold; Dice and time are None before the first finished epoch."""

    epochs: int  # finished
    total: int  # planned, according to the trainer's name, or measured for a time
    dice: float | None  # mean pseudo Dice of the last epoch, on patches of the validation cases
    seconds_left: float | None  # from the time of recent epochs, without validation

    def __str__(self) -> str:
        dice = "" if self.dice is None else f"  Dice {self.dice:.2f}"
        left = "" if self.seconds_left is None else f"  {duration(self.seconds_left)} left"
        return f"epoch {self.epochs}/{self.total}{dice}{left}"


def planned_epochs(trainer: str) -> int:
    """The number of epochs by the trainer's name: variants of ours and of nnU-Net's contain it."""
    epochs = _budget(trainer).epochs
    match = re.search(r"_(\d+)epochs?(?:_|$)", trainer)
    return epochs or (int(match[1]) if match else DEFAULT_EPOCHS)


def planned_minutes(trainer: str) -> float | None:
    """The time of a training by the trainer's name, from which the number of epochs follows; None for all others."""
    return _budget(trainer).minutes


def _budget(trainer: str) -> Budget:
    if trainer.startswith(TRAINER):
        with contextlib.suppress(ValueError):  # a user's own subclass
            return budget_from_suffix(trainer.removeprefix(TRAINER))
    return Budget()


def training_progress(folder: Path, trainer: str) -> TrainingProgress | None:
    """Read the progress from a fold's logs; None if no training was started, or is measuring how long it will be.

    Raises:
        UserError: the plan of a training with a time is damaged.
    """
    fold, plan = FoldFolder(folder), read_time_plan(folder)
    if not training_logs(fold) or (plan is None and planned_minutes(trainer) is not None):
        return None
    total = planned_epochs(trainer) if plan is None else plan.epochs
    curve = read_curve(fold)
    if curve is None:
        return TrainingProgress(0, total, None, None)
    epochs, dice = int(curve.epochs[-1]) + 1, float(curve.pseudo_dice[-1])
    seconds = seconds_of_epoch(folder)
    left = None if seconds is None else max(0, total - epochs) * seconds
    return TrainingProgress(epochs, total, None if math.isnan(dice) else dice, left)


def seconds_of_epoch(folder: Path) -> float | None:
    """The typical time of the last epochs in a fold's logs; None without any."""
    curve = read_curve(FoldFolder(folder))
    times = np.empty(0) if curve is None else curve.seconds[np.isfinite(curve.seconds)][-_RECENT:]
    return float(np.median(times)) if times.size else None


def step_progress(step: Step, settings: RunSettings, state: State) -> str:
    """The progress of a step that is in this state, in a few words; empty if unknown."""
    if step.trains is None or state.progress:
        return state.progress
    model, fold = step.trains
    try:
        progress = training_progress(settings.paths.fold(model, fold).path, model.trainer)
    except UserError as error:
        return str(error)
    return "" if progress is None else str(progress)


def short_name(step: Step, settings: RunSettings) -> str:
    """A name that is as long as the run needs to tell its steps apart, such as ``fold 0``."""
    if step.trains is None:
        return step.name
    model, fold = step.trains
    if len(settings.trained_models) == 1:
        return f"fold {fold}"
    alike = [other for other in settings.trained_models if other.configuration == model.configuration]
    return f"{model.configuration if len(alike) == 1 else model.folder} fold {fold}"
