"""The graph of steps: what each is, what it needs before it, how its state is read, how it is run.

Steps are built from the settings alone, so that a cluster's job builds the same graph and picks its own step. What
depends on files, such as which models predict, is asked when the step starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS, ensure_folds
from factorizer_nnunet.nnunet.integrity import is_complete
from factorizer_nnunet.running import command_lines, states
from factorizer_nnunet.running.best_configuration import read_best_configuration
from factorizer_nnunet.running.command_lines import Command
from factorizer_nnunet.running.dataset_files import number_of_folds, training_labels
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import CASCADE, RunModel, RunSettings
from factorizer_nnunet.running.states import State


def _none() -> tuple[str, ...]:
    return ()


def _nothing() -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a run.

    Attributes:
        after: names of the steps that must be done before.
        on_device: whether it computes on the GPU, where there is one.
        commands: from scratch; asked for when all steps before are done.
        options: for this attempt, such as ``--c``, appended to each command.
        appears: a folder that commands write under another name, and that gets its own when they ended well.
        finish: what is done in this process after the commands.
        trains: the model and fold that it trains, None for other steps.
    """

    name: str
    after: tuple[str, ...]
    state: Callable[[], State]
    commands: Callable[[], list[Command]]
    on_device: bool = False
    options: Callable[[], tuple[str, ...]] = _none
    appears: Path | None = None
    finish: Callable[[], None] = _nothing
    trains: tuple[RunModel, int] | None = None


FINGERPRINT, FOLDS, BEST = "fingerprint", "folds", "find_best_configuration"
PREDICT, ENSEMBLE, POSTPROCESS, SCORES = AFTER_CHOICE = ("predict", "ensemble", "postprocess", "scores")


def train_name(model: RunModel, fold: int) -> str:
    """The name of the step that trains a fold."""
    return f"train.{model.name}.fold_{fold}"


def build_steps(settings: RunSettings) -> list[Step]:
    """All steps, each after those that it needs."""
    paths = RunPaths(settings.folders, settings.dataset)
    steps = _preparation(settings, paths)
    prepared = steps[-1].name
    for model in settings.trained_models:
        steps += [_training(settings, paths, model, fold, prepared) for fold in _folds_of(settings, paths, model)]
    wanted = [train_name(model, fold) for model in settings.models for fold in settings.folds]
    steps.append(
        Step(
            name=BEST,
            after=tuple(wanted),
            state=partial(states.choice_state, settings, paths),
            commands=lambda: [command_lines.find_best(settings)],
        )
    )
    return steps + (_inference(settings, paths) if settings.prediction is not None else [])


def _preparation(settings: RunSettings, paths: RunPaths) -> list[Step]:
    """One after the other: they write to the same files, and share the processor anyway."""
    steps = [
        Step(
            name=FINGERPRINT,
            after=(),
            state=partial(states.fingerprint_state, paths),
            commands=lambda: [command_lines.fingerprint(settings)],
        )
    ]
    for plans in settings.plans:
        steps.append(
            Step(
                name=f"plan.{plans}",
                after=(steps[-1].name,),
                state=partial(states.plans_state, paths, plans),
                commands=lambda plans=plans: [command_lines.plan(settings, plans)],
            )
        )
    for plans, configuration in data_needed(settings):
        steps.append(
            Step(
                name=f"preprocess.{plans}.{configuration}",
                after=(steps[-1].name,),
                state=partial(states.preprocessed_state, paths, plans, configuration),
                commands=lambda plans=plans, name=configuration: [command_lines.preprocess(settings, plans, name)],
            )
        )
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


def _write_folds(paths: RunPaths) -> None:
    """Make nnU-Net's folds before trainings begin side by side, each of which would make them for itself."""
    ensure_folds(paths.splits, training_labels(paths))


def data_needed(settings: RunSettings) -> list[tuple[str, str]]:
    """Plans and configurations to preprocess, none twice; a cascade uses the data of the full resolution."""
    pairs = []
    for model in settings.trained_models:
        pairs.append((model.plans, "3d_fullres" if model.configuration == CASCADE else model.configuration))
    return list(dict.fromkeys(pairs))


def _next_stages(settings: RunSettings, model: RunModel) -> tuple[str, ...]:
    return tuple(other.configuration for other in settings.models if other.previous == model)


def _folds_of(settings: RunSettings, paths: RunPaths, model: RunModel) -> tuple[int, ...]:
    """A cascade trains on segmentations of all cases, thus on all folds of its low resolution."""
    if not _next_stages(settings, model):
        return settings.folds
    return tuple(range(number_of_folds(paths) or NUMBER_OF_FOLDS))


def _training(settings: RunSettings, paths: RunPaths, model: RunModel, fold: int, prepared: str) -> Step:
    previous = model.previous
    needed = () if previous is None else _folds_of(settings, paths, previous)
    return Step(
        name=train_name(model, fold),
        after=(prepared, *(train_name(previous, other) for other in needed)),
        on_device=True,
        state=partial(states.fold_state, paths, model, fold, _next_stages(settings, model)),
        trains=(model, fold),
        commands=lambda: [command_lines.train(settings, model, fold)],
        options=lambda: _resumed_training(paths, model, fold),
    )


def _resumed_training(paths: RunPaths, model: RunModel, fold: int) -> tuple[str, ...]:
    if is_complete(paths.checkpoint(model, fold)):
        return ("--val",)  # trained; what is missing is validation
    there = any((paths.fold(model, fold) / name).exists() for name in states.CHECKPOINTS)
    return ("--c",) if there else ()


def _inference(settings: RunSettings, paths: RunPaths) -> list[Step]:
    output = settings.prediction.output
    steps = [
        Step(
            name=PREDICT,
            after=(BEST,),
            on_device=True,
            state=partial(states.prediction_state, settings, paths),
            commands=lambda: _predictions(settings, paths),
        ),
        Step(
            name=ENSEMBLE,
            after=(PREDICT,),
            state=partial(states.ensemble_state, settings, paths),
            commands=lambda: _merging(settings, paths),
            appears=paths.before_merging(output) / "ensemble",
        ),
        Step(
            name=POSTPROCESS,
            after=(ENSEMBLE,),
            state=partial(states.final_state, settings, paths),
            commands=lambda: _postprocessing(settings, paths),
            appears=output,
        ),
    ]
    if settings.prediction.references is not None:
        steps.append(
            Step(
                name=SCORES,
                after=(POSTPROCESS,),
                state=partial(states.scores_state, settings, paths),
                commands=lambda: [command_lines.scores(settings, read_best_configuration(paths).plans_file)],
            )
        )
    return steps


def _predictions(settings: RunSettings, paths: RunPaths) -> list[Command]:
    choice = read_best_configuration(paths)
    before = paths.before_merging(settings.prediction.output)
    return [
        command_lines.predict(
            settings,
            model,
            choice.folds,
            before / model.name,
            None if model.previous is None else before / model.previous.name,
            probabilities=len(choice.models) > 1 and model in choice.models,
        )
        for model in choice.stages
    ]


def _merging(settings: RunSettings, paths: RunPaths) -> list[Command]:
    before = paths.before_merging(settings.prediction.output)
    folders = [before / model.name for model in read_best_configuration(paths).models]
    if len(folders) == 1:
        return []
    return [command_lines.ensemble(settings, folders, before / "ensemble")]


def _postprocessing(settings: RunSettings, paths: RunPaths) -> list[Command]:
    choice = read_best_configuration(paths)
    source = states.before_postprocessing(settings, paths, choice)
    return [
        command_lines.postprocess(
            settings, source, settings.prediction.output, choice.postprocessing, choice.plans_file
        )
    ]
