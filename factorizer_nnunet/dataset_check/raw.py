"""Check a raw dataset before anything is written: first dataset.json and the names of files, then every voxel.

nnU-Net notices most of these problems late, in a worker process or in the middle of a training, or not at all.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.dataset_check.check import CheckedDataset, check_dataset
from factorizer_nnunet.dataset_check.declaration import declaration_problems
from factorizer_nnunet.dataset_check.listing import list_cases
from factorizer_nnunet.dataset_check.rules import Expected
from factorizer_nnunet.nnunet.conversion_report import constant_images
from factorizer_nnunet.nnunet.dataset_json import ABSENT_KEY, DATASET_FILE, CaseFiles, DatasetJson
from factorizer_nnunet.nnunet.environment import nnunet_folder
from factorizer_nnunet.nnunet.raw_dataset import find_dataset


@dataclass(frozen=True)
class RawDataset:
    """A dataset in ``nnUNet_raw`` whose dataset.json and file names have no problems.

    Attributes:
        reader: name of the class with which nnU-Net reads its files.
        warnings: what may be intended, a sentence each.
    """

    id: int
    name: str
    folder: Path
    description: DatasetJson
    cases: tuple[CaseFiles, ...]
    reader: str
    warnings: tuple[str, ...] = ()

    @property
    def num_channels(self) -> int:
        return len(self.description.channel_names)

    @property
    def num_cases(self) -> int:
        return len(self.cases)


def check_raw_dataset(dataset: str | int) -> RawDataset:
    """Find a dataset and check its ``dataset.json`` against the files; of the images only the first is opened.

    Raises:
        UserError: all problems at once, and how to fix them.
    """
    dataset_id, name = find_dataset(dataset)
    return check_raw_folder(nnunet_folder("nnUNet_raw", writable=False) / name, dataset_id)


def check_raw_folder(folder: Path, dataset_id: int) -> RawDataset:
    """Check a dataset's ``dataset.json`` against the files, as ``check_raw_dataset`` does; also outside of nnUNet_raw.

    Raises:
        UserError: all problems at once, and how to fix them.
    """
    if not (folder / DATASET_FILE).is_file():
        raise UserError(f"{folder} has no {DATASET_FILE}. Write one as nnU-Net's dataset_format.md describes")
    description = DatasetJson.read(folder / DATASET_FILE)
    _raise(list(declaration_problems(description)), folder)
    listing = list_cases(folder, description)
    _raise([*listing.problems, *_absence_problems(description, listing.cases)], folder)
    reader = _reader(description, listing.cases[0].images[0])
    return RawDataset(
        dataset_id, folder.name, folder, description, tuple(listing.cases), reader, tuple(listing.warnings)
    )


def check_voxels(raw: RawDataset, record_folder: Path, num_processes: int) -> CheckedDataset:
    """Check what the files of a dataset contain; raises as ``check_dataset`` does."""
    names = {value: name for name, values in raw.description.labels.items() for value in reversed(values)}
    single = {values[0]: name for name, values in raw.description.labels.items() if len(values) == 1}
    expected = Expected(
        raw.description.path,
        raw.description.channel_names,
        {**names, **single},
        constant_images(raw.folder),
        raw.description.ignore_label,
        raw.description.absent_channels,
    )
    return check_dataset(raw.cases, expected, raw.reader, record_folder, num_processes)


def report_warnings(raw: RawDataset, checked: CheckedDataset) -> None:
    """Print what may be intended but should be known."""
    for warning in (*raw.warnings, *checked.warnings):
        print(f"WARNING: {raw.name}: {warning}")


def _absence_problems(description: DatasetJson, cases: Sequence[CaseFiles]) -> Iterator[str]:
    absent, names = description.absent_channels, {case.name for case in cases}
    if unknown := sorted(absent.keys() - names):
        yield f"{description.path}: {ABSENT_KEY} names cases that do not exist: {first_few(unknown)}. Correct it"
    for number, channel in enumerate(description.channel_names):
        if names and all(number in absent.get(name, ()) for name in names):
            yield (
                f"{description.path}: {ABSENT_KEY} lists channel {number} ({channel}) for every case. Remove it from "
                "channel_names, and its files"
            )


def _raise(problems: Sequence[str], folder: Path) -> None:
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        raise UserError(f"{count_of(len(problems), 'problem')} in {folder}; nothing has been written:\n{listed}")


def _reader(description: DatasetJson, example: Path) -> str:
    """The reader that nnU-Net chooses for an example file; the one for the file ending if the file is damaged."""
    for file in (os.fspath(example), None):
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),  # a traceback for each reader that fails
            contextlib.suppress(AssertionError, RuntimeError),
        ):
            return determine_reader_writer_from_dataset_json(dict(description.content), file, verbose=False).__name__
    raise UserError(
        f"nnU-Net has no reader for files that end with {description.file_ending!r}. Correct file_ending in "
        f"{description.path}, or convert the data to a format nnU-Net reads, such as .nii.gz"
    )
