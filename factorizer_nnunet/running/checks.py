"""Checks before hours are spent: first of raw data and settings, then, when plans exist, of these and the disks."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.set_aside import is_set_aside
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.nnunet.absent_channels import advice_for, drops_channels
from factorizer_nnunet.nnunet.environment import use_own_trainer
from factorizer_nnunet.nnunet.fold_checks import checked_folds
from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS, read_folds
from factorizer_nnunet.nnunet.image_files import channels_by_case
from factorizer_nnunet.nnunet.names import SPLITS_FILE, TRAINER, plans_name, template_plans_name
from factorizer_nnunet.nnunet.plans import check_names
from factorizer_nnunet.running.cascade import CASCADE, FULLRES, LOWRES
from factorizer_nnunet.running.command_lines import STOCK_PLANNERS
from factorizer_nnunet.running.inference import Inference
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.sources import stale_training
from factorizer_nnunet.running.space import check_space
from factorizer_nnunet.running.steps import build_steps

CONFIGURATIONS = ("2d", FULLRES, LOWRES, CASCADE)


def check_before_planning(settings: RunSettings) -> None:
    """Check environment variables; then settings against raw data, trainers, test images and the predictions' folder.

    Raises:
        UserError: all problems at once; nothing has been written.
    """
    from factorizer_nnunet.dataset_check.raw import check_raw_dataset, check_voxels, report_warnings  # imports torch
    from factorizer_nnunet.training.variables import variable_problems

    _raise(list(variable_problems(settings.device)))
    raw = check_raw_dataset(settings.dataset)
    problems = [*_plans_problems(settings), *_folds_problems(settings), *_unknown_trainers(settings)]
    if settings.channel_subsets and not any(drops_channels(model.trainer) for model in settings.models):
        problems.append(f"--channel-subsets needs a model for it. {advice_for(settings.models[0].trainer)}")
    if settings.prediction is not None:
        inference = Inference(settings, settings.prediction)
        problems += [*_images_problems(inference), *_output_problems(inference)]
    _raise(problems)
    _raise(list(_stale_problems(settings)))
    if settings.data_check:
        report_warnings(raw, check_voxels(raw, settings.paths.preprocessed, settings.processes))


def check_after_planning(settings: RunSettings) -> None:
    """Check trainers and plans against each other, and the space for what is still to be written.

    Raises:
        UserError: all problems at once.
    """
    from factorizer_nnunet.running.foreign_code import foreign_code_problems  # imports torch

    problems = [problem for plans in settings.plans for problem in _name_problems(settings.paths.plans(plans))]
    problems += foreign_code_problems(settings)
    for model in settings.trained_models:
        plans = settings.paths.plans(model.plans)
        configurations = (read_complete_json(plans) or {}).get("configurations", {})
        if model.configuration not in configurations:
            problems.append(
                f"{plans} has no configuration {model.configuration}; it has {', '.join(configurations)} "
                f"(nnU-Net plans {LOWRES} and its cascade only for large images)"
            )
    for trainer in dict.fromkeys(model.trainer for model in settings.models):
        problems += _trainer_problems(trainer, settings)
    _raise(problems)
    check_space(settings)


def _raise(problems: list[str]) -> None:
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError(f"{len(problems)} problems:\n" + "\n".join(f"- {problem}" for problem in problems))


def _plans_problems(settings: RunSettings) -> Iterator[str]:
    from factorizer_nnunet.network import PLANNED_FORMS, VARIANTS
    from factorizer_nnunet.planning.sizes import SIZES
    from factorizer_nnunet.planning.templates import template_sources

    forms = (None, *(name for name in PLANNED_FORMS if name != "default"))
    ours = [plans_name(size, form) for form in forms for size in (None, *SIZES)]
    ours += [plans_name(variant=name) for name in VARIANTS if name not in PLANNED_FORMS]
    can_be_made = (*STOCK_PLANNERS, *ours, *map(template_plans_name, template_sources()))
    for plans in settings.plans:
        file = settings.paths.plans(plans)
        if file.is_file():
            yield from _name_problems(file)
        elif plans not in can_be_made:
            yield (
                f"there are no plans {file}, and this command can only make {', '.join(can_be_made)}: plan the data "
                "set under this name first"
            )
    for model in settings.models:
        if not settings.paths.plans(model.plans).is_file() and model.configuration not in CONFIGURATIONS:
            yield f"unknown configuration {model.configuration!r}: choose from {', '.join(CONFIGURATIONS)}"


def _name_problems(file: Path) -> Iterator[str]:
    try:
        check_names(read_complete_json(file) or {}, file)
    except UserError as error:
        yield str(error)


def _stale_problems(settings: RunSettings) -> Iterator[str]:
    """Trainings on data that have changed since; before anything is made again."""
    if settings.accept_outdated:
        return
    for step in build_steps(settings):
        stale = None
        with contextlib.suppress(OSError, UserError):  # what cannot be read fails its own step, not the others
            stale = None if step.trains is None else stale_training(settings.paths, *step.trains)
        if stale is not None:
            yield stale


def _folds_problems(settings: RunSettings) -> Iterator[str]:
    paths = settings.paths
    cases = paths.raw_dataset().training_cases(paths.raw)
    file = next((file for file in (paths.splits, paths.raw / SPLITS_FILE) if file.is_file()), None)
    if file is None:
        defined = NUMBER_OF_FOLDS
        if len(cases) < NUMBER_OF_FOLDS:
            yield (
                f"{paths.raw} has {len(cases)} training cases, too few for {NUMBER_OF_FOLDS} folds. Train on all of "
                "them instead: nnUNetv2_train … all"
            )
    else:
        try:
            for warning in checked_folds(file, cases.keys(), paths.raw).warnings:
                print(f"WARNING: {file}: {warning}")
        except UserError as error:
            yield str(error)
            return
        defined = len(read_folds(file))
    wrong = [fold for fold in settings.folds if not 0 <= fold < defined]
    if wrong:
        where = "nnU-Net makes" if file is None else f"{file} defines"
        yield f"no fold {', '.join(map(str, wrong))}: {where} {defined} folds, counted from 0"


def _images_problems(inference: Inference) -> Iterator[str]:
    images, ending = inference.prediction.images, inference.file_ending
    if not images.is_dir():
        yield f"no folder {images}; give test images with --input"
        return
    cases = channels_by_case(images, ending)[0]
    if not cases:
        yield f"no test images in {images}: no file CASE_0000{ending}"
    dataset = inference.settings.paths.raw_dataset()
    expected = len(dataset.channel_names)
    may_lack = all(drops_channels(model.trainer) for model in inference.settings.models)
    complete = set(range(expected))
    wrong = [
        f"{case}: {sorted(found)}"
        for case, found in cases.items()
        if not (found <= complete if may_lack else found == complete)
    ]
    if wrong:
        yield (
            f"{len(wrong)} of {len(cases)} test cases in {images} have other channels than 0 to {expected - 1}, "
            f"which {dataset.path} names ({first_few(wrong)}); add or remove image files"
        )
    references = inference.prediction.references
    if references is not None:
        missing = [case for case in cases if not (references / f"{case}{ending}").is_file()]
        if missing:
            yield f"{len(missing)} of {len(cases)} test cases have no label in {references} ({first_few(missing)})"


def _output_problems(inference: Inference) -> Iterator[str]:
    """A folder of predictions must be new, empty, or of an earlier run like this one."""
    output = inference.prediction.output
    if output.exists() and not output.is_dir():
        yield f"{output} is a file; choose a folder with --output"
    elif output.is_dir():
        own: set[Path] = set()
        if inference.folder.is_dir() and inference.prediction.images.is_dir():
            own = set(inference.own_files())
        foreign = sorted(p.name for p in output.iterdir() if p not in own and not is_set_aside(p.name))
        if foreign:
            yield (
                f"{output} contains {len(foreign)} files that are not of this run ({first_few(foreign)}); choose an "
                "empty or new folder with --output"
            )
    parent = next(folder for folder in (output, *output.parents) if folder.exists())
    if not os.access(parent, os.W_OK):
        yield f"you may not write in {parent}; choose another --output"


def _unknown_trainers(settings: RunSettings) -> Iterator[str]:
    for trainer in dict.fromkeys(model.trainer for model in settings.models):
        try:
            _find_trainer(trainer)
        except UserError as error:
            yield str(error)


def _trainer_problems(trainer: str, settings: RunSettings) -> Iterator[str]:
    """Plans that our trainer cannot train on."""
    from factorizer_nnunet.training.checks import check_plans
    from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

    if not issubclass(_find_trainer(trainer), nnUNetTrainerFactorizer):
        return
    dataset_json = read_complete_json(settings.paths.dataset_json)
    for model in settings.trained_models:
        if model.trainer == trainer:
            try:
                check_plans(read_complete_json(settings.paths.plans(model.plans)), model.configuration, dataset_json)
            except UserError as error:
                yield f"{trainer} cannot train on {model.plans}: {error}"


def _find_trainer(name: str) -> type:
    """The trainer's class, as nnU-Net finds it.

    Raises:
        UserError: no trainer has this name.
    """
    use_own_trainer()
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        near = f" Did you mean {TRAINER}?" if difflib.get_close_matches(name, [TRAINER], cutoff=0.8) else ""
        raise UserError(
            f"nnU-Net does not find the trainer {name}.{near} Correct the name, or add the folder that contains it to "
            "nnUNet_extTrainer"
        ) from error
    except Exception as error:  # a broken module of the user may raise anything
        raise UserError(f"trainer {name}: {error}") from error
