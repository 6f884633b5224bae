"""Images named as nnU-Net expects, ``CASE_0000.ENDING``: the cases of a folder, and whether they fit a model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import first_few


@dataclass(frozen=True)
class ImageCase:
    """One case to predict.

    Attributes:
        name: the file names without channel and ending.
        files: one per channel, in order; a single one if a file contains all channels.
        previous: the segmentation of the previous stage, in a cascade.
    """

    name: str
    files: tuple[Path, ...]
    previous: Path | None = None


def image_name(case: str, channel: int, file_ending: str) -> str:
    """The file name of one channel of a case."""
    return f"{case}_{channel:04d}{file_ending}"


def case_and_channel(name: str, file_ending: str) -> tuple[str, int] | None:
    """Case and channel from a file name, the inverse of ``image_name``; None for other names."""
    match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(file_ending)}", name)
    return None if match is None else (match[1], int(match[2]))


def channels_by_case(folder: Path, file_ending: str) -> tuple[dict[str, set[int]], list[str]]:
    """Channels of every case in a folder, by case name, and names of other files with the same ending; both sorted.

    Both are empty if the folder does not exist.
    """
    channels: defaultdict[str, set[int]] = defaultdict(set)
    others = []
    for name in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []:
        if (found := case_and_channel(name, file_ending)) is not None:
            channels[found[0]].add(found[1])
        elif name.endswith(file_ending):
            others.append(name)
    return dict(channels), others


def find_cases(
    folder: Path,
    file_ending: str,
    num_channels: int,
    channels_in: Callable[[Sequence[Path]], int],
    previous: Path | None = None,
) -> list[ImageCase]:
    """Find the cases of a folder, sorted by name.

    Args:
        folder: with files ``CASE_0000.ENDING``, ``CASE_0001.ENDING``, ….
        file_ending: such as ``.nii.gz``.
        num_channels: the number that the model takes.
        channels_in: returns how many channels files contain; called once, for one file, if cases have fewer files
            than channels.
        previous: folder with the previous stage's segmentations ``CASE.ENDING``, in a cascade.

    Raises:
        UserError: there are no cases, or some lack channels or segmentations; reports all problems at once.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Name the folder of the images with -i")
    found, others = channels_by_case(folder, file_ending)
    channels = {case: numbers for case, numbers in found.items() if not case.startswith(".")}  # hidden files
    others = [name for name in others if not name.startswith(".")]
    if not channels:
        seen = f"; it has {first_few(others, 3)}" if others else ""
        raise UserError(f"{folder} has no images CASE_0000{file_ending}{seen}. Name the folder of the images with -i")
    expected = range(num_channels)
    if num_channels > 1 and all(numbers == {0} for numbers in channels.values()):
        first = folder / image_name(next(iter(channels)), 0, file_ending)
        expected = range(1) if channels_in([first]) == num_channels else expected  # colours in one file
    problems = [f"{name} is not named CASE_0000{file_ending}" for name in others]
    problems += _channel_problems(channels, expected)
    if previous is not None:
        problems += [
            f"{case}: no segmentation {case}{file_ending} of the previous stage in {previous}"
            for case in channels
            if not (previous / f"{case}{file_ending}").is_file()
        ]
    if problems:
        raise UserError(
            f"{folder} does not fit the model, which takes {num_channels} channels: {first_few(problems, 20)}"
        )
    return [
        ImageCase(
            case,
            tuple(folder / image_name(case, channel, file_ending) for channel in expected),
            None if previous is None else previous / f"{case}{file_ending}",
        )
        for case in channels
    ]


def _channel_problems(channels: Mapping[str, set[int]], expected: Collection[int]) -> Iterator[str]:
    for case, found in channels.items():
        for what, wrong in (("lacks", set(expected) - found), ("has unexpected", found - set(expected))):
            if wrong:
                yield f"{case} {what} {', '.join(f'_{channel:04d}' for channel in sorted(wrong))}"
