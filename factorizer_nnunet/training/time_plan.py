"""How many epochs fit a time: from the measured time of an iteration to the length of a training.

The plan is made before the first epoch and kept in the fold's folder. The number of epochs then stays; how many
iterations the remaining ones have is corrected after an epoch if the machine has become slower or faster. Checkpoints
contain the corrected plan, so that a resumed training has the same epochs and learning rates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object

TIME_PLAN_FILE = "time_plan.json"
# Where fewer usual epochs fit, as on a CPU: so many shorter ones, for progress to be seen and the length corrected.
_SHORT_EPOCHS = 10
_FEWEST_ITERATIONS = 10  # of an epoch, or half of a usual one that has fewer than 20
_MOST_BETWEEN = 0.1  # of the time may go into the ends of short epochs


@dataclass(frozen=True, kw_only=True)
class MeasuredTimes:
    """What a training was measured to take, in seconds.

    Attributes:
        spent: from the start of the command to the first epoch.
        step: one training iteration, with its loading.
        validation_step: one iteration of an epoch's validation, with its loading.
        epoch_end: nnU-Net's plot of the progress, and a checkpoint.
        final: the validation after the last epoch, which predicts all cases of the fold; estimated.
    """

    spent: float
    step: float
    validation_step: float
    epoch_end: float
    final: float


@dataclass(frozen=True, kw_only=True)
class TimePlan:
    """Length of a training that fits a time.

    Attributes:
        epochs: of the complete training.
        iterations_per_epoch: from ``first_epoch`` on.
        validation_iterations: of each epoch.
        first_epoch: the first one with so many iterations.
        first_iteration: iterations before that epoch.
    """

    epochs: int
    iterations_per_epoch: int
    validation_iterations: int
    first_epoch: int = 0
    first_iteration: int = 0

    def iterations_before(self, epoch: int) -> int:
        """Iterations of all earlier epochs."""
        return self.first_iteration + (epoch - self.first_epoch) * self.iterations_per_epoch


def plan_time(minutes: float, times: MeasuredTimes, iterations: int, validation_iterations: int) -> TimePlan:
    """The longest training that ends with its validation in ``minutes``.

    Epochs are shortened, to half of ``iterations`` at the most, so that they fill the time. Where not even 10 complete
    epochs fit, there are up to 10 of 10 iterations or more, with as many fewer validation iterations.

    Raises:
        UserError: not even 10 iterations fit.
    """
    available = 60 * minutes - times.spent - times.final
    others = validation_iterations * times.validation_step + times.epoch_end
    epoch = iterations * times.step + others
    if available < _SHORT_EPOCHS * epoch:
        return _plan_short_epochs(minutes, times, iterations, validation_iterations)
    epochs = math.ceil(available / epoch)
    shortened = math.floor((available / epochs - others) / times.step)
    if shortened < iterations / 2:  # the others take most of an epoch
        epochs, shortened = math.floor(available / epoch), iterations
    return TimePlan(
        epochs=epochs,
        iterations_per_epoch=min(iterations, shortened),
        validation_iterations=validation_iterations,
    )


def corrected_plan(plan: TimePlan, epoch: int, left: float, step: float, others: float) -> TimePlan:
    """The plan whose epochs from ``epoch`` on take ``left`` seconds, as far as one iteration or more each allows.

    Args:
        plan: followed until now.
        epoch: the next one, before the last.
        left: seconds until the final validation.
        step: seconds of a training iteration.
        others: seconds of an epoch without its training iterations.
    """
    iterations = math.floor((left / (plan.epochs - epoch) - others) / step)
    return replace(
        plan,
        iterations_per_epoch=max(1, iterations),
        first_epoch=epoch,
        first_iteration=plan.iterations_before(epoch),
    )


def _plan_short_epochs(minutes: float, times: MeasuredTimes, iterations: int, validation_iterations: int) -> TimePlan:
    """A training that is shorter than 10 complete epochs."""
    available = 60 * minutes - times.spent - times.final
    fewest = min(_FEWEST_ITERATIONS, math.ceil(iterations / 2))
    share = validation_iterations / iterations  # validation iterations for each one of training
    between = times.epoch_end + times.validation_step  # one validation iteration may come from rounding up
    complete = math.ceil(available / (iterations * (times.step + share * times.validation_step) + between))
    for epochs in range(_SHORT_EPOCHS, 0, -1):
        if epochs > complete and epochs * between > _MOST_BETWEEN * available:
            continue
        left = available / epochs - between
        shortened = math.floor(left / (times.step + share * times.validation_step))
        if shortened >= fewest:
            shortened = min(shortened, iterations)
            return TimePlan(
                epochs=epochs,
                iterations_per_epoch=shortened,
                validation_iterations=min(validation_iterations, math.floor(shortened * share) + 1),
            )
    least = fewest * (times.step + share * times.validation_step) + between
    needed = math.ceil((times.spent + times.final + least) / 60 * (1 + 1e-9))
    raise UserError(
        f"a training of {minutes:g} minutes is too short: starting takes {_minutes(times.spent)}, {fewest} iterations "
        f"{_minutes(least)} and the validation of the fold's cases {_minutes(times.final)} minutes. Use a trainer with "
        f"_{needed}m or more"
    )


def write_time_plan(plan: TimePlan, times: MeasuredTimes, fold: Path) -> None:
    """Keep a plan, and what it follows from, in the folder of a fold."""
    content = {**asdict(plan), "measured_seconds": asdict(times)}
    write_text_atomically(fold / TIME_PLAN_FILE, json.dumps(content, indent=4) + "\n")


def read_time_plan(fold: Path) -> TimePlan | None:
    """The plan of a fold; None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    file = fold / TIME_PLAN_FILE
    if not file.is_file():
        return None
    fix = "Restore it, or move the fold's folder away and train again without --c"
    plan = plan_of(load_json_object(file, fix))
    if plan is None:
        raise UserError(f"{file} does not give the epochs and iterations of a training. {fix}")
    return plan


def plan_of(content: Mapping[str, Any]) -> TimePlan | None:
    """The plan that ``asdict`` gave; None if an entry is missing or wrong."""
    least = {"epochs": 1, "iterations_per_epoch": 1, "validation_iterations": 1}  # the others may be 0 or missing
    values = {field.name: content.get(field.name, None if field.name in least else 0) for field in fields(TimePlan)}
    if any(type(value) is not int or value < least.get(name, 0) for name, value in values.items()):
        return None
    return TimePlan(**values)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"
