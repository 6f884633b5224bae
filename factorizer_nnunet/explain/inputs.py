"""Find and check the images and truths to explain, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.nnunet.image_files import ImageCase, case_and_channel, find_cases
from factorizer_nnunet.prediction.image_reading import channels_by, check_complete
from factorizer_nnunet.prediction.model import TrainedModel


def cases_from(images: Sequence[Path], model: TrainedModel) -> list[ImageCase]:
    """Cases of a folder, or the one case whose files are given.

    Raises:
        UserError: images are missing or do not fit the model; all problems at once.
    """
    if len(images) == 1 and images[0].is_dir():
        channels = model.num_channels, channels_by(model.plans)
        return find_cases(images[0], model.file_ending, *channels, declared_in=model.dataset.path)
    missing = [str(file) for file in images if not file.is_file()]
    if missing:
        raise UserError(f"-i: {first_few(missing)} not found. Name a folder of images, or the files of one case")
    named = [case_and_channel(file.name, model.file_ending) for file in images]
    if named[0] is None:
        return [ImageCase(images[0].name.removesuffix(model.file_ending), tuple(images))]
    case = named[0][0]
    if len(images) > 1 and None not in named and named != [(case, channel) for channel in range(len(images))]:
        expected = [f"{case}_{channel:04d}{model.file_ending}" for channel in range(len(images))]
        raise UserError(
            f"-i: {first_few([file.name for file in images])} are not the channels of one case in order; expected "
            f"{first_few(expected)}"
        )
    return [ImageCase(case, tuple(images))]


def check_images(cases: Sequence[ImageCase], model: TrainedModel) -> None:
    """Read every image.

    Raises:
        UserError: some are unreadable or have the wrong number of channels; all problems at once.
    """
    channels_in = channels_by(model.plans)
    problems = []
    for case in cases:
        try:
            for file in case.files:
                check_complete(file)
        except (OSError, UserError) as error:
            problems.append(f"{case.name}: {error}")
            continue
        count = channels_in(case.files)
        found = [channels_in([file]) for file in case.files] if count == 0 else [count]
        if 0 in found:
            problems.append(f"{case.name}: {case.files[found.index(0)]} cannot be read as an image")
        elif sum(found) != model.num_channels:
            takes = f"the model takes {model.num_channels}, as {model.dataset.path} says"
            problems.append(f"{case.name} has {count_of(sum(found), 'channel')}, {takes}")
        elif count == 0:
            files = first_few([str(file) for file in case.files])
            problems.append(f"{case.name}: its channels differ in shape or spacing: {files}")
    if problems:
        raise UserError(f"these images cannot be explained: {first_few(problems, 20)}. Fix them or leave them out")


def check_truths(cases: Sequence[ImageCase], folder: Path | None, model: TrainedModel) -> dict[str, Path]:
    """The true segmentation of each case; empty without a folder.

    Raises:
        UserError: some are missing, unreadable, differ from the image in shape, or have unknown labels; all problems
            at once.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Name with --labels the folder of the true segmentations")
    files = {case.name: folder / f"{case.name}{model.file_ending}" for case in cases}
    reader = model.plans.image_reader_writer_class()
    problems = []
    for case in cases:
        file = files[case.name]
        try:
            check_complete(file)
            labels = reader.read_seg(str(file))[0]
            image = reader.read_images([str(case.files[0])])[0]
        except Exception:  # readers of many formats, each with exceptions of its own
            problems.append(f"{file} {'cannot be read' if file.is_file() else 'is missing'}")
            continue
        if labels.shape[1:] != image.shape[1:]:
            problems.append(f"{file} has shape {labels.shape[:0:-1]}, its image {image.shape[:0:-1]}")
        elif unknown := sorted(set(np.unique(labels).tolist()) - model.dataset.label_values):
            values = first_few([f"{value:g}" for value in unknown])
            problems.append(f"{file} contains label values that dataset.json does not declare: {values}")
    if problems:
        raise UserError(f"--labels {folder}: {first_few(problems, 20)}. Fix them, or leave out --labels")
    return files
