"""Which cases a folder of images holds, and whether each is what the model takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import first_few


@dataclass(frozen=True)
class ImageCase:
    """One case to predict.

    Attributes:
        name: its files' without channel and ending.
        files: one per channel, in order; a single one where a file holds all channels.
        previous: the segmentation of the previous stage, in a cascade.
    """

    name: str
    files: tuple[Path, ...]
    previous: Path | None = None


def find_cases(
    folder: Path,
    file_ending: str,
    num_channels: int,
    channels_in: Callable[[Sequence[Path]], int],
    previous: Path | None = None,
) -> list[ImageCase]:
    """Cases of a folder, by name.

    Args:
        folder: with files ``CASE_0000.ENDING``, ``CASE_0001.ENDING``, ….
        file_ending: such as ``.nii.gz``.
        num_channels: that the model takes.
        channels_in: how many channels files hold; asked once, of one file, if cases have fewer files than channels.
        previous: folder with the previous stage's segmentations ``CASE.ENDING``, in a cascade.

    Raises:
        UserError: no cases, or some lack channels or segmentations; all problems at once.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder. Name with -i the folder of the images")
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(file_ending) and path.name[0] != ".")
    channels, odd = _channels_by_case(names, file_ending)
    if not channels:
        seen = f"; it has {first_few(names, 3)}" if names else ""
        raise UserError(f"{folder} has no images CASE_0000{file_ending}{seen}. Name the folder of the images with -i")
    expected = tuple(range(num_channels))
    if num_channels > 1 and all(found == (0,) for found in channels.values()):
        first = folder / f"{next(iter(channels))}_0000{file_ending}"
        expected = (0,) if channels_in([first]) == num_channels else expected  # colours of one file
    problems = [f"{name} is not named CASE_0000{file_ending}" for name in odd]
    problems += [problem for case, found in channels.items() for problem in _problems(case, found, expected)]
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
            name,
            tuple(folder / f"{name}_{channel:04d}{file_ending}" for channel in expected),
            None if previous is None else previous / f"{name}{file_ending}",
        )
        for name in channels
    ]


def case_and_channel(name: str, file_ending: str) -> tuple[str, int] | None:
    """Case and channel of a file that is named as nnU-Net's images are, ``CASE_0000.ENDING``; None of another."""
    match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(file_ending)}", name)
    return None if match is None else (match[1], int(match[2]))


def _channels_by_case(names: Iterable[str], file_ending: str) -> tuple[Mapping[str, tuple[int, ...]], list[str]]:
    channels: dict[str, tuple[int, ...]] = {}
    odd = []
    for name in names:
        found = case_and_channel(name, file_ending)
        if found is None:
            odd.append(name)
        else:
            case, channel = found
            channels[case] = (*channels.get(case, ()), channel)
    return channels, odd


def _problems(case: str, found: tuple[int, ...], expected: tuple[int, ...]) -> Iterable[str]:
    for what, wrong in (("lacks", set(expected) - set(found)), ("has surplus", set(found) - set(expected))):
        if wrong:
            yield f"{case} {what} {', '.join(f'_{channel:04d}' for channel in sorted(wrong))}"
