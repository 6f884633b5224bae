"""How long the trainings of a run will take, from epochs that have been timed on this machine."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.wording import count_of, duration
from factorizer_nnunet.nnunet.integrity import is_complete
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import parse_repeat
from factorizer_nnunet.running.progress import (
    planned_epochs,
    planned_minutes,
    seconds_of_epoch,
    training_progress,
)
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.step import Step

_DEBUG_FILE = "debug.json"  # nnU-Net's, next to the log of a training: the machine and the device


@dataclass(frozen=True)
class Estimate:
    """Time of the trainings that are not finished.

    Attributes:
        seconds: of all whose time is known, together, without validations.
        known: how many these are.
        unknown: how many others there are.
    """

    seconds: float
    known: int
    unknown: int

    def __str__(self) -> str:
        if not self.known + self.unknown:
            return "all folds are trained"
        if not self.known:
            return "time of the trainings: not known before their first epoch, since none was timed on this machine"
        later = f"; of {self.unknown} more, not known before their first epoch" if self.unknown else ""
        return f"time of {count_of(self.known, 'training')}: about {duration(self.seconds)}, plus validations{later}"


def estimate_trainings(settings: RunSettings, steps: Sequence[Step], slots: int) -> Estimate:
    """Estimate the time of all trainings that are not finished, ``slots`` of them at a time."""
    times = [_seconds_left(settings, *step.trains) for step in steps if step.trains is not None]
    known = [seconds for seconds in times if seconds]
    busy = [0.0] * max(1, slots)
    for seconds in known:  # each begins where one ends first
        busy[busy.index(min(busy))] += seconds
    return Estimate(max(busy), len(known), times.count(None))


def _seconds_left(settings: RunSettings, model: ModelName, fold: int) -> float | None:
    """Time until a fold is trained, 0 if it is; None if it is not known."""
    folder, minutes = settings.paths.fold(model, fold), planned_minutes(model.trainer)
    with contextlib.suppress(UserError):  # of a damaged file, which fails its own step
        if is_complete(folder.checkpoint()):
            return 0.0
        progress = training_progress(folder.path, model.trainer)
        if progress is None and minutes is not None:
            return 60 * minutes
        epochs = planned_epochs(model.trainer) if progress is None else progress.total - progress.epochs
        for timed in (folder.path, *_comparable_folds(settings, model)):
            seconds = seconds_of_epoch(timed) if _is_of_this_machine(timed, settings.device) else None
            if seconds is not None:
                return epochs * seconds
    return None if minutes is None else 60 * minutes


def _comparable_folds(settings: RunSettings, model: ModelName) -> Iterator[Path]:
    """Folds with the same network, patches and length of epochs: of this model, then of others with more or fewer."""
    yield from (fold.path for fold in settings.paths.model(model).folds())
    for folder in sorted(settings.paths.results.glob(f"*__{model.plans}__{model.configuration}")):
        other = ModelName.parse(folder.name)
        if other is not None and other != model and _epoch_kind(other.trainer) == _epoch_kind(model.trainer):
            yield from (fold.path for fold in ModelFolder(folder).folds())


def _epoch_kind(trainer: str) -> str:
    """The trainer's name without numbers of epochs and repeats. With a time it stays: that may shorten epochs."""
    return re.sub(r"_\d+epochs?(?=_|$)", "", parse_repeat(trainer)[0])


def _is_of_this_machine(fold: Path, device: str) -> bool:
    noted = read_complete_json(fold / _DEBUG_FILE) or {}
    return noted.get("hostname") == platform.node() and str(noted.get("device", "")).startswith(device)
