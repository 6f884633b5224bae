"""How far a training is: epoch, pseudo Dice, time left, read from nnU-Net's own log of the fold."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from factorizer_nnunet.nnunet.names import TRAINER
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.step import Step
from factorizer_nnunet.training.budget import budget_from_suffix

DEFAULT_EPOCHS = 1000  # nnU-Net's
_RECENT = 20  # epochs from whose time that of the remaining ones is estimated


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a fold.

    Attributes:
        epochs: finished.
        total: planned, according to the trainer's name.
        dice: mean pseudo Dice of the last epoch, on patches of the validation cases; None before the first.
        seconds_left: from the time of recent epochs, without validation; None before the first.
    """

    epochs: int
    total: int
    dice: float | None
    seconds_left: float | None

    def __str__(self) -> str:
        dice = "" if self.dice is None else f", Dice {self.dice:.3f}"
        left = "" if self.seconds_left is None else f", {timedelta(seconds=round(self.seconds_left))} left"
        return f"epoch {self.epochs} of {self.total}{dice}{left}"


def planned_epochs(trainer: str) -> int:
    """The number of epochs by the trainer's name: variants of ours and of nnU-Net's contain it."""
    if trainer.startswith(TRAINER):
        try:
            return budget_from_suffix(trainer.removeprefix(TRAINER)).epochs or DEFAULT_EPOCHS
        except ValueError:  # a user's own subclass
            pass
    match = re.search(r"_(\d+)epochs?(?:_|$)", trainer)
    return int(match[1]) if match else DEFAULT_EPOCHS


def training_progress(fold: Path, trainer: str) -> TrainingProgress | None:
    """Read the progress from a fold's logs; None if no training was started."""
    logs = sorted(fold.glob("training_log_*.txt"), key=lambda log: log.stat().st_mtime)
    if not logs:
        return None
    epochs, dice, times, epoch = 0, None, [], 0
    for log in logs:
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := re.search(r"Epoch (\d+)\s*$", line):
                epoch = int(match[1])
            elif match := re.search(r"Pseudo dice \[(.*)\]", line):
                values = [float(value) for value in re.findall(r"(?<![\w.])(\d+\.\d+(?:e-?\d+)?)", match[1])]
                dice = statistics.fmean(values) if values else None
            elif match := re.search(r"Epoch time: (\S+) s", line):
                epochs = epoch + 1
                times.append(float(match[1]))
    total = planned_epochs(trainer)
    left = max(0, total - epochs) * statistics.median(times[-_RECENT:]) if times else None
    return TrainingProgress(epochs, total, dice, left)


def step_progress(step: Step, paths: RunPaths) -> str:
    """The progress of a step in a few words; empty if unknown."""
    progress_in_words = step.look().progress
    if step.trains is None or progress_in_words:
        return progress_in_words
    model, fold = step.trains
    progress = training_progress(paths.fold(model, fold).path, model.trainer)
    return "" if progress is None else str(progress)


def short_name(step: Step) -> str:
    """A name for a line with several steps."""
    return step.name if step.trains is None else f"{step.trains[0].configuration} fold {step.trains[1]}"
