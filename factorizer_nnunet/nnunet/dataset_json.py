"""nnU-Net's ``dataset.json``: channels, labels and cases of a data set. Imports neither torch nor nnU-Net."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.path_names import path_component
from factorizer_nnunet.nnunet.image_files import channels_by_case, image_name

DATASET_FILE = "dataset.json"
# The keys of the file, as nnU-Net writes them; the old one before nnU-Net 2.
DISPLAY_KEY = "display_channel"  # our own: the channel of pictures; nnU-Net ignores it
ABSENT_KEY = "absent_channels"  # our own: channels that cases lack; nnU-Net ignores it
CHANNELS_KEY, OLD_CHANNELS_KEY = "channel_names", "modality"
LABELS_KEY, REGIONS_ORDER_KEY = "labels", "regions_class_order"
ENDING_KEY, CASES_KEY, READER_KEY = "file_ending", "numTraining", "overwrite_image_reader_writer"
BACKGROUND, IGNORE = "background", "ignore"  # names of labels with a meaning of their own
_DEFAULT_FILE_ENDING = ".nii.gz"

_FORMAT_FIX = "Fix it as nnU-Net's dataset_format.md describes"
_MISSING_FIX = "Restore it, or name the folder that has it"


@dataclass(frozen=True)
class CaseFiles:
    """The files of a training case."""

    name: str
    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class DatasetJson:
    """A ``dataset.json``. Only what is asked for is checked; :mod:`dataset_check` checks everything.

    Attributes:
        content: everything in the file, as nnU-Net's functions take it.
        path: the file, for messages.
    """

    content: dict[str, Any]
    path: Path = Path(DATASET_FILE)

    @classmethod
    def read(cls, path: Path, fix: str | None = None) -> DatasetJson:
        """Read the file ``path``.

        Raises:
            UserError: it cannot be read or is not a JSON object; the message ends with ``fix``, or what fits.
        """
        return cls(load_json_object(path, fix or (_FORMAT_FIX if path.exists() else _MISSING_FIX)), path)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of an image's channels, in the order of the file names; empty if the file names none.

        Raises:
            UserError: they are not numbered.
        """
        named = self.content.get(CHANNELS_KEY, self.content.get(OLD_CHANNELS_KEY, {}))  # the latter before nnU-Net 2
        try:
            return tuple(str(named[number]) for number in sorted(named, key=int))
        except (OverflowError, TypeError, ValueError) as error:
            raise UserError(
                f'{self.path}: channel_names must map numbers to names, such as {{"0": "T1"}}, not {named}'
            ) from error

    @property
    def display_channel(self) -> int | None:
        """The channel that shows the labels best, counted from 0, if the conversion named one of the channels."""
        value = str(self.content.get(DISPLAY_KEY, ""))
        return int(value) if value.isdecimal() and int(value) < len(self.channel_names) else None

    @property
    def absent_channels(self) -> dict[str, frozenset[int]]:
        """Numbers of the channels that a training case lacks, by case; the files of these channels contain only 0.

        Raises:
            UserError: they are not listed as numbers of channels, or a case lacks all channels.
        """
        entries, total = self.content.get(ABSENT_KEY, {}), len(self.channel_names)
        if not isinstance(entries, Mapping) or not all(_are_numbers(listed) for listed in entries.values()):
            raise UserError(
                f'{self.path}: {ABSENT_KEY} must map cases to numbers of channels, such as {{"case_7": [1, 2]}}, not '
                f"{entries!r}. Correct it"[:500]
            )
        for case, listed in entries.items():
            if not set(listed) < set(range(total)):
                raise UserError(
                    f"{self.path}: {ABSENT_KEY} of {case} are {listed}, which must be some of the channels 0 to "
                    f"{total - 1}, but not all. Correct it"
                )
        return {str(case): frozenset(listed) for case, listed in entries.items() if listed}

    @property
    def file_ending(self) -> str:
        """The ending of images and labels, with its dot.

        Raises:
            UserError: it cannot end a file's name.
        """
        return path_component(self.content.get(ENDING_KEY, _DEFAULT_FILE_ENDING), f"file_ending in {self.path}")

    @property
    def num_training(self) -> int:
        """The number of training cases that the file states; 0 if it states none.

        Raises:
            UserError: it is not a number.
        """
        number = self.content.get(CASES_KEY, 0)
        if not isinstance(number, int):
            raise UserError(f"{self.path}: numTraining must be a number of cases, not {number!r}. Correct it")
        return number

    @property
    def labels(self) -> dict[str, tuple[int, ...]]:
        """Values of every label or region by name, background and the ignore label included.

        Raises:
            UserError: the file declares none, or they are not integers; the background is not 0, or two labels have one
                value.
        """
        entries = self.content.get(LABELS_KEY)
        if not isinstance(entries, Mapping) or not all(_is_label(value) for value in entries.values()):
            raise UserError(
                f"{self.path}: labels must map names to integers or lists of them, such as "
                f'{{"tumor": 1}}, not {entries}'
            )
        try:
            "".join(entries).encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(f"{self.path}: the name of a label is not valid text: {error}. Correct it") from error
        labels = {name: _values(value) for name, value in entries.items()}
        if labels.get(BACKGROUND, (0,)) != (0,):
            raise UserError(f"{self.path}: label {BACKGROUND!r} must be 0, as in nnU-Net, not {entries[BACKGROUND]}")
        named: dict[int, str] = {}
        for name, value in entries.items():
            if not isinstance(value, list) and named.setdefault(value, name) != name:
                raise UserError(f"{self.path}: labels {named[value]!r} and {name!r} have the same value {value}")
        return labels

    @property
    def regions(self) -> dict[str, tuple[int, ...]]:
        """Values of what is to be segmented: labels or regions by name, without background and the ignore label.

        Raises:
            UserError: as for ``labels``.
        """
        return {name: values for name, values in self.labels.items() if name not in (BACKGROUND, IGNORE)}

    @property
    def has_regions(self) -> bool:
        """Whether a region has several labels, so that nnU-Net segments regions, which may overlap."""
        return any(len(values) > 1 for values in self.regions.values())

    @property
    def region_keys(self) -> dict[str, str]:
        """The key that nnU-Net's ``summary.json`` has for each of :attr:`regions`."""
        regions, entries = self.regions, self.content[LABELS_KEY]
        return {
            name: str(values if self.has_regions and isinstance(entries[name], list) else values[0])
            for name, values in regions.items()
        }

    @property
    def ignore_label(self) -> int | None:
        """The value of voxels that are neither trained on nor scored; None if there is none."""
        return self.labels[IGNORE][0] if IGNORE in self.labels else None

    @property
    def label_values(self) -> frozenset[int]:
        """Every value that label files may contain, 0 and the ignore label included."""
        return frozenset({0}.union(*self.labels.values()))

    @property
    def listed(self) -> dict[str, tuple[list[str], str]] | None:
        """Images and label of every case that the file lists under ``dataset``; None if it lists none.

        Raises:
            UserError: they are not listed in nnU-Net's form.
        """
        entries = self.content.get("dataset")
        if entries is None:
            return None
        try:
            found = {str(case): (list(entry["images"]), entry["label"]) for case, entry in entries.items()}
        except (AttributeError, KeyError, TypeError):
            found = {"": ([], None)}
        if not all(isinstance(file, str) for images, label in found.values() for file in (*images, label)):
            raise UserError(
                f'{self.path}: "dataset" must map cases to {{"images": [FILE, …], "label": FILE}}. Correct it'
            )
        for case in found:
            path_component(case, f"a case in {self.path}")
        return found

    def training_cases(self, raw: Path) -> dict[str, CaseFiles]:
        """The files of every training case by its name, whether they exist or not; images in the order of the channels.

        nnU-Net's own function gives the same, but starts a pool of processes for it on every call.

        Args:
            raw: the data set's folder in ``nnUNet_raw``.

        Raises:
            UserError: as for ``listed``.
        """
        if (listed := self.listed) is not None:
            return {
                case: CaseFiles(case, tuple(expanded(raw, file) for file in files), expanded(raw, label))
                for case, (files, label) in listed.items()
            }
        images, ending = raw / "imagesTr", self.file_ending
        cases, _ = channels_by_case(images, ending)
        return {
            case: CaseFiles(
                case,
                tuple(images / image_name(case, channel, ending) for channel in sorted(channels)),
                raw / "labelsTr" / f"{case}{ending}",
            )
            for case, channels in cases.items()
        }


def name_key(name: str) -> str:
    """A name of a channel or class without what differs between places: capitals, spaces, dashes and the like."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def expanded(raw: Path, file: str) -> Path:
    """A file as nnU-Net finds it: variables expanded, relative to the dataset's folder."""
    return Path(os.path.abspath(raw / os.path.expandvars(file)))


def _is_label(value: object) -> bool:
    numbers = value if isinstance(value, list | tuple) else [value]
    return bool(numbers) and all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)


def _are_numbers(listed: object) -> bool:
    return isinstance(listed, list) and all(type(number) is int for number in listed)


def _values(value: int | list[int] | tuple[int, ...]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)
