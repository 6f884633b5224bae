"""Hours for a run, as a time for each of its trainings."""

from __future__ import annotations

import math
from dataclasses import replace

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import TRAINER
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.training.budget import budget_from_suffix


def share_hours(settings: RunSettings, hours: float, slots: int) -> RunSettings:
    """The same run with trainers that end in time: ``nnUNetTrainerFactorizer_90m`` for ``nnUNetTrainerFactorizer``.

    The names depend on the hours, the models and folds, and ``slots``, how many trainings run at a time, alone; so the
    same command resumes the same trainings.

    Raises:
        UserError: the hours are not a positive number or less than a minute for each training, or a trainer is not ours
            or has a length of its own.
    """
    if not 0 < hours < math.inf:
        raise UserError(f"invalid --hours {hours:g}: expected a number above 0")
    rounds = math.ceil(len(settings.trainings) / slots)
    minutes = math.floor(60 * hours / rounds)
    if minutes < 1:
        raise UserError(
            f"--hours {hours:g} leaves less than a minute for each of {len(settings.trainings)} trainings, {slots} at "
            "a time: give more hours, or fewer folds or configurations"
        )
    return replace(settings, models=tuple(_with_time(model, minutes) for model in settings.models))


def _with_time(model: ModelName, minutes: int) -> ModelName:
    suffix = model.trainer.removeprefix(TRAINER)
    try:
        if suffix == model.trainer:
            raise ValueError(f"it is not {TRAINER}")
        budget = budget_from_suffix(suffix)
    except ValueError as error:
        raise UserError(
            f"--hours cannot set the length of {model.trainer}: {error}. Leave out --hours, or this trainer"
        ) from error
    if budget.epochs or budget.minutes:
        raise UserError(f"{model.trainer} has a length of its own: leave out --hours, or the length in its name")
    return replace(model, trainer=f"{TRAINER}_{minutes}m{suffix}")
