"""What would spoil a run, found before hours are spent: first without plans, then, once they are there, with them."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.environment import EXT_TRAINER_VARIABLE, ext_trainer_value
from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS
from factorizer_nnunet.nnunet.names import plans_name
from factorizer_nnunet.running import states
from factorizer_nnunet.running.command_lines import STOCK_PLANNERS
from factorizer_nnunet.running.dataset_files import (
    image_channels,
    number_of_folds,
    raw_dataset_json,
    training_labels,
)
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import CASCADE, LOWRES, Prediction, RunSettings
from factorizer_nnunet.running.space import check_space

CONFIGURATIONS = ("2d", "3d_fullres", LOWRES, CASCADE)
_SHOWN = 5


def check_before_planning(settings: RunSettings) -> None:
    """Check what is asked for against the raw data, trainers, test images and the folder for their segmentations.

    Raises:
        UserError: all problems at once; nothing has been written.
    """
    from factorizer_nnunet.nnunet.raw_dataset import check_raw_dataset

    paths = RunPaths(settings.folders, settings.dataset)
    check_raw_dataset(settings.dataset)
    problems = [*_plans_problems(settings, paths), *_folds_problems(settings, paths), *_unknown_trainers(settings)]
    if settings.prediction is not None:
        problems += [
            *_images_problems(settings.prediction, raw_dataset_json(paths)),
            *_output_problems(settings, paths),
        ]
    _raise(problems)


def check_after_planning(settings: RunSettings) -> None:
    """Check trainers and plans against each other, and the space for what is still to be written.

    Raises:
        UserError: all problems at once.
    """
    paths = RunPaths(settings.folders, settings.dataset)
    problems = []
    for model in settings.trained_models:
        configurations = (read_complete_json(paths.plans(model.plans)) or {}).get("configurations", {})
        if model.configuration not in configurations:
            problems.append(
                f"{paths.plans(model.plans)} has no configuration {model.configuration}; it has "
                f"{', '.join(configurations)} (nnU-Net plans {LOWRES} and its cascade only for large images)"
            )
    for trainer in dict.fromkeys(model.trainer for model in settings.models):
        problems += _trainer_problems(trainer, settings, paths)
    _raise(problems)
    check_space(settings)


def _raise(problems: list[str]) -> None:
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError(f"{len(problems)} problems:\n" + "\n".join(f"- {problem}" for problem in problems))


def _plans_problems(settings: RunSettings, paths: RunPaths) -> Iterator[str]:
    from factorizer_nnunet.network import VARIANTS
    from factorizer_nnunet.planning.sizes import SIZES

    ours = [plans_name(), *map(plans_name, SIZES), *(plans_name(variant=n) for n in VARIANTS if n != "default")]
    for plans in settings.plans:
        there = paths.plans(plans).is_file()
        if not there and plans not in (*STOCK_PLANNERS, *ours):
            yield (
                f"there are no plans {paths.plans(plans)}, and only {', '.join((*STOCK_PLANNERS, *ours))} can be made "
                "by this command: plan the data set under this name first"
            )
    for model in settings.models:
        there = paths.plans(model.plans).is_file()
        if not there and model.configuration not in CONFIGURATIONS:
            yield f"unknown configuration {model.configuration!r}: choose from {', '.join(CONFIGURATIONS)}"


def _folds_problems(settings: RunSettings, paths: RunPaths) -> Iterator[str]:
    defined = number_of_folds(paths)
    cases = len(training_labels(paths))
    if defined is None and cases < NUMBER_OF_FOLDS:
        yield f"{paths.raw} has {cases} training cases, too few for {NUMBER_OF_FOLDS} folds"
    wrong = [fold for fold in settings.folds if not 0 <= fold < (defined or NUMBER_OF_FOLDS)]
    if wrong:
        where = f"{paths.splits} defines" if defined else "nnU-Net makes"
        yield f"no fold {', '.join(map(str, wrong))}: {where} {defined or NUMBER_OF_FOLDS} folds, counted from 0"


def _images_problems(prediction: Prediction, dataset_json: dict) -> Iterator[str]:
    images, ending = prediction.images, dataset_json["file_ending"]
    if not images.is_dir():
        yield f"no folder {images}; give test images with --input"
        return
    cases = image_channels(images, ending)
    if not cases:
        yield f"no test images in {images}: no file CASE_0000{ending}"
    names = dataset_json.get("channel_names", dataset_json.get("modality"))
    wrong = {case: channels for case, channels in cases.items() if channels != set(range(len(names)))}
    if wrong:
        shown = "; ".join(f"{case}: {sorted(wrong[case])}" for case in list(wrong)[:_SHOWN])
        yield (
            f"{len(wrong)} of {len(cases)} test cases in {images} have other channels than 0 to {len(names) - 1} "
            f"({shown}); add or remove image files"
        )
    if prediction.references is not None:
        missing = [case for case in cases if not (prediction.references / f"{case}{ending}").is_file()]
        if missing:
            shown = ", ".join(missing[:_SHOWN])
            yield f"{len(missing)} of {len(cases)} test cases have no label in {prediction.references} ({shown})"


def _output_problems(settings: RunSettings, paths: RunPaths) -> Iterator[str]:
    """A folder of predictions must be new, empty, or of an earlier run like this one."""
    output = settings.prediction.output
    if output.exists() and not output.is_dir():
        yield f"{output} is a file; choose a folder with --output"
    elif output.is_dir():
        begun = paths.before_merging(output).is_dir()
        own = (
            {path.name for path in states.own_files(settings)}
            if begun and settings.prediction.images.is_dir()
            else set()
        )
        foreign = sorted(path.name for path in output.iterdir() if path.name not in own)
        if foreign:
            yield (
                f"{output} holds {len(foreign)} files that are not of this run ({', '.join(foreign[:_SHOWN])}); choose "
                "an empty or new folder with --output"
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


def _trainer_problems(trainer: str, settings: RunSettings, paths: RunPaths) -> Iterator[str]:
    """Whether our trainer gets plans that it can train on."""
    from factorizer_nnunet.training.checks import check_plans
    from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

    if not issubclass(_find_trainer(trainer), nnUNetTrainerFactorizer):
        return
    dataset_json = read_complete_json(paths.dataset_json)
    for model in settings.trained_models:
        if model.trainer == trainer:
            try:
                check_plans(read_complete_json(paths.plans(model.plans)), model.configuration, dataset_json)
            except UserError as error:
                yield f"{trainer} cannot train on {model.plans}: {error}"


def _find_trainer(name: str) -> type:
    """The trainer's class, as nnU-Net finds it.

    Raises:
        UserError: there is none of this name.
    """
    os.environ[EXT_TRAINER_VARIABLE] = ext_trainer_value(os.environ.get(EXT_TRAINER_VARIABLE))
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return recursive_find_trainer_class_by_name(name)
    except Exception as error:  # a broken module of the user's own may raise anything
        raise UserError(f"trainer {name}: {error}") from error
