"""The graph of steps: each step of a run and the steps that it needs before it.

Steps are built from the settings alone, so that a cluster job builds the same graph and picks its own step. What
depends on files, such as which models predict, is read when the step starts.
"""

from __future__ import annotations

from functools import partial

from factorizer_nnunet.nnunet.absent_channels import drops_channels
from factorizer_nnunet.nnunet.folds import ensure_folds
from factorizer_nnunet.nnunet.integrity import is_complete
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.provenance import record_plans
from factorizer_nnunet.nnunet.validation_files import keep_edited, record_validation
from factorizer_nnunet.running import command_lines, states
from factorizer_nnunet.running.best_configuration import (
    BEST,
    best_configuration,
    keep_best_configuration,
    keep_that_of_unnamed_run,
)
from factorizer_nnunet.running.cascade import data_configuration, previous_stage
from factorizer_nnunet.running.inference import Inference
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.postprocessing import tuning_step
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.sources import (
    fingerprint,
    note_plans_of_fingerprint,
    preprocessed_data,
    record_training,
)
from factorizer_nnunet.running.step import Step

FINGERPRINT, FOLDS, SUBSETS = "fingerprint", "folds", "channel_subsets"
_PLAN, _PREPROCESS = "plan.", "preprocess."  # followed by the plans' name, and the configuration


def build_steps(settings: RunSettings) -> list[Step]:
    """All steps, each after those that it needs."""
    steps = _preparation(settings)
    prepared = steps[-1].name
    steps += [_training(settings, model, fold, prepared) for model, fold in settings.trainings]
    steps += [_subsets(settings, model, fold) for model, fold in subset_trainings(settings)]
    steps.append(
        Step(
            name=BEST,
            after=tuple(train_name(model, fold) for model in settings.models for fold in settings.folds),
            state=partial(states.best_configuration_state, settings),
            commands=lambda: [command_lines.find_best(settings)],
            prepare=partial(keep_that_of_unnamed_run, settings.paths),
            finish=partial(keep_best_configuration, settings.paths),
            derived=partial(best_configuration, settings),
        )
    )
    if settings.postprocessing is not None:
        steps.append(tuning_step(settings, settings.postprocessing))
    if settings.prediction is not None:
        steps += Inference(settings, settings.prediction).steps(after=steps[-1].name)
    return steps


def train_name(model: ModelName, fold: int) -> str:
    """The name of the step that trains a fold."""
    return f"train.{model.folder}.fold_{fold}"


def subset_trainings(settings: RunSettings) -> list[tuple[ModelName, int]]:
    """Models and folds whose validation cases are predicted with every subset of channels; none unless asked for."""
    if not settings.channel_subsets:
        return []
    return [(model, fold) for model, fold in settings.trainings if drops_channels(model.trainer)]


def is_planning(step: Step) -> bool:
    """Whether a step must be done before plans can be checked."""
    return step.name == FINGERPRINT or step.name.startswith(_PLAN)


def needs_checked_plans(step: Step) -> bool:
    """Whether a step takes long and fails, or is wasted, if the plans are wrong."""
    return step.trains is not None or step.name.startswith(_PREPROCESS)


def data_needed(settings: RunSettings) -> list[tuple[str, str]]:
    """Plans and configurations to preprocess, none twice; a cascade uses the data of the full resolution."""
    pairs = ((model.plans, data_configuration(model.configuration)) for model in settings.trained_models)
    return list(dict.fromkeys(pairs))


def _preparation(settings: RunSettings) -> list[Step]:
    """Fingerprint, plans, preprocessed data and folds, one after the other: they write to the same files."""
    paths = settings.paths
    steps = [
        Step(
            name=FINGERPRINT,
            after=(),
            state=partial(states.fingerprint_state, paths),
            commands=lambda: [command_lines.fingerprint(settings)],
            options=_no_bar,
            prepare=partial(_before_fingerprint, settings),
            derived=partial(fingerprint, paths),
        )
    ]
    for plans in settings.plans:
        steps.append(_planning(settings, plans, steps[-1].name))
    for plans, configuration in data_needed(settings):
        steps.append(_preprocessing(settings, plans, configuration, steps[-1].name))
    steps.append(
        Step(
            name=FOLDS,
            after=(steps[-1].name,),
            state=partial(states.folds_state, paths),
            commands=list,
            finish=partial(_write_folds, paths),
        )
    )
    return steps


def _planning(settings: RunSettings, plans: str, after: str) -> Step:
    return Step(
        name=f"{_PLAN}{plans}",
        after=(after,),
        state=partial(states.plans_state, settings.paths, plans),
        commands=lambda: [command_lines.plan(settings, plans)],
        finish=lambda: record_plans(settings.paths.plans(plans)),
    )


def _preprocessing(settings: RunSettings, plans: str, configuration: str, after: str) -> Step:
    return Step(
        name=f"{_PREPROCESS}{plans}.{configuration}",
        after=(after,),
        state=partial(states.preprocessed_state, settings.paths, plans, configuration),
        commands=lambda: [command_lines.preprocess(settings, plans, configuration)],
        options=_no_bar,
        derived=partial(preprocessed_data, settings.paths, plans, configuration),
    )


def _no_bar() -> tuple[str, ...]:
    """What keeps nnU-Net's progress bar out of a step's log."""
    return ("--no_pbar",)


def _before_fingerprint(settings: RunSettings) -> list[str]:
    for plans in settings.plans:
        note_plans_of_fingerprint(settings.paths, plans)
    return []


def _write_folds(paths: RunPaths) -> None:
    """Make nnU-Net's folds once: trainings that start at the same time would each make them."""
    ensure_folds(paths.splits, paths.raw_dataset().training_cases(paths.raw))


def _training(settings: RunSettings, model: ModelName, fold: int, prepared: str) -> Step:
    previous = previous_stage(model)
    before = [] if previous is None else [train_name(previous, other) for other in settings.folds_of(previous)]
    return Step(
        name=train_name(model, fold),
        after=(prepared, *before),
        on_device=True,
        state=partial(states.fold_state, settings, model, fold, settings.next_stages(model)),
        prepare=partial(_before_training, settings.paths, model, fold),
        finish=partial(_after_training, settings.paths, model, fold),
        trains=(model, fold),
        commands=lambda: [_training_command(settings, model, fold)],
        options=lambda: _resumed_training(settings, model, fold),
    )


def _subsets(settings: RunSettings, model: ModelName, fold: int) -> Step:
    return Step(
        name=f"{SUBSETS}.{model.folder}.fold_{fold}",
        after=(train_name(model, fold),),
        on_device=True,
        state=partial(states.channel_subsets_state, settings.paths, model, fold),
        commands=lambda: [command_lines.channel_subsets(settings, model, fold)],
    )


def _before_training(paths: RunPaths, model: ModelName, fold: int) -> list[str]:
    """Keep segmentations that the next validation would overwrite."""
    return keep_edited(paths.fold(model, fold), paths.raw_dataset().file_ending)


def _after_training(paths: RunPaths, model: ModelName, fold: int) -> None:
    """Record what stock trainers do not."""
    record_training(paths, model, fold)
    record_validation(paths.fold(model, fold), paths.labels, paths.raw_dataset().file_ending)


def _training_command(settings: RunSettings, model: ModelName, fold: int) -> command_lines.Command:
    if states.lacks_only_scores(settings, model, fold):
        return command_lines.validation_scores(settings, settings.paths.model(model), fold)
    return command_lines.train(settings, model, fold)


def _resumed_training(settings: RunSettings, model: ModelName, fold: int) -> tuple[str, ...]:
    if states.lacks_only_scores(settings, model, fold):
        return ()
    folder = settings.paths.fold(model, fold)
    if is_complete(folder.checkpoint()):
        return ("--val",)  # trained; only the validation is missing
    return () if folder.last_checkpoint() is None else ("--c",)
