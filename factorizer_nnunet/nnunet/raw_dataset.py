"""Find a data set in nnU-Net's folders and check its raw data before anything is written.

nnU-Net notices most of these problems late, in a worker process or after the fingerprint; each is a ``UserError`` here.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson
from factorizer_nnunet.nnunet.environment import nnunet_folder
from factorizer_nnunet.nnunet.image_files import channels_by_case, image_name

NAME_PATTERN = re.compile(r"Dataset(\d{3,})_.+")


def id_in_name(name: str) -> int:
    """The number in a data set's name, ``DatasetXXX_Name``."""
    return int(name.removeprefix("Dataset").split("_")[0])


@dataclass(frozen=True)
class RawDataset:
    """A checked data set in ``nnUNet_raw``."""

    id: int
    name: str
    folder: Path
    description: DatasetJson
    num_cases: int

    @property
    def num_channels(self) -> int:
        return len(self.description.channel_names)


def find_dataset(dataset: str | int, variable: str = "nnUNet_raw") -> tuple[int, str]:
    """The ID and the folder name of a data set in one of nnU-Net's folders.

    Args:
        dataset: an ID such as ``4`` or ``"004"``, or a name such as ``"Dataset004_Hippocampus"``.
        variable: names the folder, which is ``nnUNet_raw`` or ``nnUNet_preprocessed``.

    Raises:
        UserError: the folder is not usable, has no such data set, or the ID belongs to several names.
    """
    folder = nnunet_folder(variable, writable=False)
    text = str(dataset).strip()
    named = NAME_PATTERN.fullmatch(text)
    if named is None and re.fullmatch(r"\d+", text) is None:
        raise UserError(
            f"{text!r} is neither a data set ID nor a name of the form DatasetXXX_Name. {_known(folder, variable)}"
        )
    dataset_id = int(named.group(1) if named else text)
    # nnU-Net's commands take an ID and give up when raw, preprocessed and results folders hold several names for it.
    names = [str(name) for name in find_candidate_datasets(dataset_id)]
    if len(names) > 1:
        raise UserError(
            f"the ID {dataset_id} belongs to several data sets in nnUNet_raw, nnUNet_preprocessed and nnUNet_results: "
            f"{', '.join(names)}. Rename or remove all but one"
        )
    name = text if named else next(iter(names), None)
    if name is None or not (folder / name).is_dir():
        raise UserError(f"no data set {text} in {variable} ({folder}). {_known(folder, variable)}")
    return dataset_id, name


def _known(folder: Path, variable: str) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and NAME_PATTERN.fullmatch(path.name))
    if names:
        return f"Known there: {', '.join(names)}"
    if variable == "nnUNet_raw":
        return f"{folder} has no data set: convert one to nnU-Net's raw layout (DatasetXXX_Name) first"
    return f"{folder} has no data set: plan one first, with factorizer-nnunet plan -d ID"


def check_raw_dataset(dataset: str | int) -> RawDataset:
    """Find a data set and check its ``dataset.json`` against the files; of the images only the first is opened.

    Raises:
        UserError: the first problem found, and how to fix it.
    """
    dataset_id, name = find_dataset(dataset)
    folder = nnunet_folder("nnUNet_raw", writable=False) / name
    if not (folder / DATASET_FILE).is_file():
        raise UserError(f"{folder} has no {DATASET_FILE}. Write one as nnU-Net's dataset_format.md describes")
    description = DatasetJson.read(folder / DATASET_FILE)
    _check_keys(description)
    cases = (
        _listed_cases(folder, description) if "dataset" in description.content else _found_cases(folder, description)
    )
    if description.num_training != len(cases):
        raise UserError(
            f"{description.path} says numTraining {description.num_training}, but there are {len(cases)} training "
            f"cases (the first: {', '.join(cases[:3])}). Correct numTraining or add the missing cases"
        )
    _check_readable(folder, description, cases[0])
    return RawDataset(dataset_id, name, folder, description, len(cases))


def _check_keys(description: DatasetJson) -> None:
    """Check that all required keys exist and have valid values."""
    json_file, content = description.path, description.content
    missing = [key for key in ("labels", "numTraining", "file_ending") if key not in content]
    if "channel_names" not in content and "modality" not in content:
        missing.insert(0, "channel_names")
    if missing:
        raise UserError(
            f"{json_file} lacks {', '.join(missing)}. Add what is missing as nnU-Net's dataset_format.md describes"
        )
    if not description.channel_names:
        raise UserError(f'{json_file}: channel_names is empty. Map numbers to names, such as {{"0": "T1"}}')
    ending, labels = content["file_ending"], content["labels"]
    if not isinstance(ending, str) or not ending.startswith("."):
        raise UserError(f'{json_file}: file_ending must be a text such as ".nii.gz", not {ending!r}. Correct it')
    if not isinstance(labels, dict):
        raise UserError(
            f'{json_file}: labels must map names to numbers, such as {{"background": 0, "tumor": 1}}, not {labels}'
        )
    try:
        LabelManager(labels, content.get("regions_class_order"))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{json_file}: nnU-Net cannot use labels {labels}: {error}. Names map to numbers "
            '({"background": 0, "tumor": 1}), regions to lists of numbers, which also need regions_class_order'
        ) from error
    numbers = sorted(set().union(*description.labels.values()))
    if numbers != list(range(len(numbers))):
        raise UserError(
            f"{json_file}: labels must be consecutive from 0 (background), not {numbers}. Renumber them there and in "
            "the label files"
        )


def _found_cases(folder: Path, description: DatasetJson) -> list[str]:
    """Case names in imagesTr, each with all channels and a label file."""
    ending, images, num_channels = description.file_ending, folder / "imagesTr", len(description.channel_names)
    channels_of, others = channels_by_case(images, ending)
    if others:
        raise UserError(
            f"{images / others[0]} is not named as nnU-Net expects: CASE_0000{ending} with the channel as four digits, "
            "counted from 0000. Rename or remove it"
        )
    if not channels_of:
        raise UserError(
            f"no training images in {images}: no file CASE_0000{ending}. Put the images there or correct file_ending"
        )
    for case, channels in channels_of.items():
        if channels != set(range(num_channels)):
            raise UserError(
                f"case {case} in {images} has the channels {sorted(channels)}, but dataset.json names {num_channels} "
                "(counted from 0). Add or remove image files, or correct channel_names"
            )
    unlabelled = [label for label in description.training_labels(folder).values() if not label.is_file()]
    if unlabelled:
        raise UserError(
            f"{len(unlabelled)} training cases have no label file in {folder / 'labelsTr'}, the first: "
            f"{unlabelled[0].name}. Add the labels or move these images away"
        )
    return list(channels_of)


def _check_readable(folder: Path, description: DatasetJson, case: str) -> None:
    """Check that nnU-Net has a reader for the first case's files."""
    listed = description.content.get("dataset")
    default = f"imagesTr/{image_name(case, 0, description.file_ending)}"
    image = folder / os.path.expandvars(default if listed is None else listed[case]["images"][0])
    try:
        # nnU-Net prints every reader that it tries, and a traceback for each that fails.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            determine_reader_writer_from_dataset_json(dict(description.content), str(image))
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"nnU-Net has no reader for {image}: the file is damaged, or its format is not "
            f"{description.file_ending!r}. Replace the file, or convert the data to a format nnU-Net reads, such as "
            ".nii.gz"
        ) from error


def _listed_cases(folder: Path, description: DatasetJson) -> list[str]:
    """Case names listed under ``dataset`` in dataset.json, whose files exist."""
    try:
        cases = get_filenames_of_train_images_and_targets(os.fspath(folder), dict(description.content))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f'{description.path}: "dataset" must map each case to {{"images": [...], "label": ...}} ({error!r})'
        ) from error
    if not cases:
        raise UserError(f'no training images: "dataset" in {description.path} is empty. List the cases or drop the key')
    files = [file for case in cases.values() for file in [*case["images"], case["label"]]]
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} files listed in {description.path} do not exist, the first: {missing[0]}. Correct the "
            "list or add the files"
        )
    return list(cases)
