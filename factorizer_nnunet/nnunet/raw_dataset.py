"""Find a data set in nnU-Net's folders and check its raw form before anything is written.

nnU-Net meets most of these faults late, in a worker process or after the fingerprint; each is a ``UserError`` here.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.environment import nnunet_folder

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
    num_channels: int
    num_cases: int


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
        return f"{folder} holds no data set: convert one to nnU-Net's raw layout (DatasetXXX_Name) first"
    return f"{folder} holds no data set: plan one first, with factorizer-nnunet plan -d ID"


def check_raw_dataset(dataset: str | int) -> RawDataset:
    """Find a data set and check its ``dataset.json`` against the files; of the images only the first is opened.

    Raises:
        UserError: the first fault found, with its mend.
    """
    dataset_id, name = find_dataset(dataset)
    folder = nnunet_folder("nnUNet_raw", writable=False) / name
    json_file = folder / "dataset.json"
    if not json_file.is_file():
        raise UserError(f"{folder} has no dataset.json. Write one as nnU-Net's dataset_format.md describes")
    content = load_json_object(json_file, "Mend the file as nnU-Net's dataset_format.md describes")
    num_channels = _check_keys(json_file, content)
    cases = _listed_cases(folder, content) if "dataset" in content else _found_cases(folder, content, num_channels)
    if content["numTraining"] != len(cases):
        raise UserError(
            f"{json_file} says numTraining {content['numTraining']!r}, but there are {len(cases)} training cases "
            f"(the first: {', '.join(cases[:3])}). Correct numTraining or add the missing cases"
        )
    _check_readable(folder, content, cases[0])
    return RawDataset(dataset_id, name, folder, num_channels, len(cases))


def _check_keys(json_file: Path, content: Mapping) -> int:
    """Check the required keys; returns the number of channels."""
    missing = [key for key in ("labels", "numTraining", "file_ending") if key not in content]
    if "channel_names" not in content and "modality" not in content:
        missing.insert(0, "channel_names")
    if missing:
        raise UserError(
            f"{json_file} lacks {', '.join(missing)}. Add what is missing as nnU-Net's dataset_format.md describes"
        )
    channels = content.get("channel_names", content.get("modality"))
    if not isinstance(channels, dict) or not channels:
        raise UserError(f'{json_file}: channel_names must map numbers to names, such as {{"0": "T1"}}, not {channels}')
    if not isinstance(content["file_ending"], str) or not content["file_ending"].startswith("."):
        raise UserError(
            f'{json_file}: file_ending must be a text such as ".nii.gz", not {content["file_ending"]!r}. Correct it'
        )
    labels = content["labels"]
    if not isinstance(labels, dict):
        raise UserError(
            f'{json_file}: labels must map names to numbers, such as {{"background": 0, "tumor": 1}}, not {labels}'
        )
    try:
        LabelManager(labels, content.get("regions_class_order"))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{json_file}: nnU-Net cannot use labels {labels}: {error}. Names map to numbers "
            '({"background": 0, "tumor": 1}), regions to lists of them, with regions_class_order beside'
        ) from error
    numbers = sorted({n for value in labels.values() for n in (value if isinstance(value, list | tuple) else [value])})
    if numbers != list(range(len(numbers))):
        raise UserError(
            f"{json_file}: labels must be consecutive from 0 (background), not {numbers}. Renumber them there and in "
            "the label files"
        )
    return len(channels)


def _found_cases(folder: Path, content: Mapping, num_channels: int) -> list[str]:
    """Case identifiers in imagesTr, each with all channels and a label file."""
    ending = content["file_ending"]
    images = folder / "imagesTr"
    pattern = re.compile(r"(.+)_(\d{4})" + re.escape(ending))
    channels_of: defaultdict[str, set[int]] = defaultdict(set)
    names = sorted(path.name for path in images.iterdir() if path.name.endswith(ending)) if images.is_dir() else []
    for name in names:
        match = pattern.fullmatch(name)
        if match is None:
            raise UserError(
                f"{images / name} is not named as nnU-Net expects: CASE_0000{ending} with the channel as four digits, "
                "counted from 0000. Rename or remove it"
            )
        channels_of[match.group(1)].add(int(match.group(2)))
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
    unlabelled = [case for case in channels_of if not (folder / "labelsTr" / (case + ending)).is_file()]
    if unlabelled:
        raise UserError(
            f"{len(unlabelled)} training cases have no label file in {folder / 'labelsTr'}, the first: "
            f"{unlabelled[0] + ending}. Add the labels or move these images away"
        )
    return list(channels_of)


def _check_readable(folder: Path, content: Mapping, case: str) -> None:
    """Check that nnU-Net has a reader for the files, as told by the first case."""
    ending = content["file_ending"]
    image = content["dataset"][case]["images"][0] if "dataset" in content else f"imagesTr/{case}_0000{ending}"
    image = folder / os.path.expandvars(image)
    try:
        # It prints every reader that it tries, with a traceback of each that fails.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            determine_reader_writer_from_dataset_json(dict(content), str(image))
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"nnU-Net has no reader for {image}: the file is damaged, or its format is not what {ending!r} says. "
            "Replace the file, or convert the data to a format nnU-Net reads, such as .nii.gz"
        ) from error


def _listed_cases(folder: Path, content: Mapping) -> list[str]:
    """Case identifiers listed under ``dataset`` in dataset.json, whose files exist."""
    try:
        cases = get_filenames_of_train_images_and_targets(os.fspath(folder), dict(content))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f'{folder / "dataset.json"}: "dataset" must map each case to {{"images": [...], "label": ...}} ({error!r})'
        ) from error
    if not cases:
        raise UserError(
            f'no training images: "dataset" in {folder / "dataset.json"} is empty. List the cases or drop the key'
        )
    files = [file for case in cases.values() for file in [*case["images"], case["label"]]]
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} files listed in {folder / 'dataset.json'} do not exist, the first: {missing[0]}. "
            "Correct the list or add the files"
        )
    return list(cases)
