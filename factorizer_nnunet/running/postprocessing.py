"""Tune the postprocessing of the chosen model within a run. A pair of models has none: labels are then nnU-Net's."""

from __future__ import annotations

from functools import partial

from factorizer_nnunet.core.file_stamps import Source, stamp_of_value
from factorizer_nnunet.nnunet.integrity import is_complete
from factorizer_nnunet.nnunet.provenance import Derived
from factorizer_nnunet.running import command_lines
from factorizer_nnunet.running.best_configuration import BEST, current_best_configuration
from factorizer_nnunet.running.command_lines import Command
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.step import State, Step

TUNE = "tune_postprocessing"
_NUMBERS = f"{TUNE}.json"  # written last


def tuning_step(settings: RunSettings, scheme: str) -> Step:
    """The step, after the choice of the model."""
    return Step(
        name=TUNE,
        after=(BEST,),
        state=partial(_state, settings, scheme),
        commands=partial(_commands, settings, scheme),
        derived=partial(_tuned, settings, scheme),
    )


def _state(settings: RunSettings, scheme: str) -> State:
    """Done when numbers of these predictions under this scheme exist, or the choice is a pair of models."""
    best = current_best_configuration(settings)
    if best is None or best.is_ensemble:
        return State(best is not None)
    numbers = settings.paths.tuned_postprocessing / _NUMBERS
    if not is_complete(numbers):
        return State(False)
    reason = _tuned(settings, scheme).stale_reason()
    return State(True) if reason is None else State(False, reason, outdated=(numbers,))


def _commands(settings: RunSettings, scheme: str) -> list[Command]:
    best = current_best_configuration(settings)
    if best is None or best.is_ensemble:
        return []
    return [command_lines.tune_postprocessing(settings, best.models[0], scheme)]


def _tuned(settings: RunSettings, scheme: str) -> Derived:
    """The numbers, made from scores and checkpoints of all folds of the chosen model."""
    sources: dict[str, Source] = {"scheme": stamp_of_value(scheme)}
    best = current_best_configuration(settings)
    for model in () if best is None else best.models:
        for fold in settings.folds:
            folder = settings.paths.fold(model, fold)
            sources |= {f"scores of {model.folder} fold {fold}": folder.summary}
            sources |= {f"checkpoint of {model.folder} fold {fold}": folder.checkpoint()}
    numbers = settings.paths.tuned_postprocessing / _NUMBERS
    return Derived(settings.paths.record(TUNE), sources, {}, (numbers,))
