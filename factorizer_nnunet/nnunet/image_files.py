"""Images named as nnU-Net expects, ``CASE_0000.ENDING``: the cases of a folder, and whether they fit a model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of, first_few


@dataclass(frozen=True)
class ImageCase:
    """One case to predict.

    Attributes:
        name: the file names without channel and ending.
        files: one per channel, in order; a single one if a file contains all channels.
        previous: the segmentation of the previous stage, for each model that is a cascade.
        absent: numbers of the channels without a file.
    """

    name: str
    files: tuple[Path, ...]
    previous: tuple[Path, ...] = ()
    absent: tuple[int, ...] = ()

    @property
    def numbered_files(self) -> dict[int, Path]:
        """The files by the number of their channel."""
        total = len(self.files) + len(self.absent)
        return dict(zip((number for number in range(total) if number not in self.absent), self.files, strict=True))


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


def check_images_folder(folder: Path) -> None:
    """Check what was given with ``-i``.

    Raises:
        UserError: it is not a folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Name the folder of the images with -i")


def find_cases(
    folder: Path,
    file_ending: str,
    num_channels: int,
    channels_in: Callable[[Sequence[Path]], int],
    previous: Sequence[Path] = (),
    declared_in: Path | None = None,
    lack_advice: str | None = "",
) -> list[ImageCase]:
    """Find the cases of a folder, sorted by name. Endings in other case, such as ``.NII.GZ``, count as the same.

    Args:
        folder: with files ``CASE_0000.ENDING``, ``CASE_0001.ENDING``, ….
        file_ending: such as ``.nii.gz``.
        num_channels: the number that the model takes.
        channels_in: returns how many channels files contain; called once, for one file, if cases have fewer files
            than channels.
        previous: folders with a previous stage's segmentations ``CASE.ENDING``, one for each model that is a cascade.
        declared_in: the ``dataset.json`` that names the channels, for the message.
        lack_advice: what to do if channels are missing; None if cases may lack some.

    Raises:
        UserError: there are no cases, or some lack channels or segmentations; reports all problems at once.
    """
    check_images_folder(folder)
    images, problems = images_by_case(folder, file_ending)
    if not images:
        others = [path.name for path in passed_over(folder, [])]
        unnumbered = next((name for name in others if name.lower().endswith(file_ending.lower())), None)
        fix = "Name the folder of the images with -i"
        if unnumbered is not None:
            renamed = f"{unnumbered[: -len(file_ending)]}_0000{file_ending}"
            fix = f"Name each file by its channel: {unnumbered} becomes {renamed}"
        elif others:
            fix += f"; the model takes {file_ending} files"
        seen = f"; it has {first_few(others, 3)}" if others else ""
        raise UserError(f"{folder} has no images CASE_0000{file_ending}{seen}. {fix}")
    expected = range(num_channels)
    if num_channels > 1 and all(set(files) == {0} for files in images.values()):
        first = next(iter(images.values()))[0]
        expected = range(1) if channels_in([first]) == num_channels else expected  # colours in one file
    found = {case: set(files) for case, files in images.items()}
    lacking = any(set(expected) - channels for channels in found.values())
    problems += _channel_problems(found, expected, may_lack=lack_advice is None)
    problems += [
        f"{case}: no segmentation {case}{file_ending} of the previous stage in {stage}"
        for stage in previous
        for case in images
        if not (stage / f"{case}{file_ending}").is_file()
    ]
    if problems:
        says = "" if declared_in is None else f", as {declared_in} says"
        takes = count_of(num_channels, "channel")
        raise UserError(
            f"{folder} does not fit the model, which takes {takes}{says}: {first_few(problems, 20)}"
            + (f". {lack_advice}" if lacking and lack_advice else "")
        )
    return [
        ImageCase(
            case,
            tuple(images[case][channel] for channel in expected if channel in images[case]),
            tuple(stage / f"{case}{file_ending}" for stage in previous),
            tuple(channel for channel in expected if channel not in images[case]),
        )
        for case in sorted(images)
    ]


def images_by_case(folder: Path, file_ending: str) -> tuple[dict[str, dict[int, Path]], list[str]]:
    """Files by case and channel, with endings in upper or lower case; and what is wrong with their names.

    Both are empty if the folder does not exist.
    """
    images: dict[str, dict[int, Path]] = {}
    problems = []
    existing = folder.iterdir() if folder.is_dir() else ()
    for path in sorted(path for path in existing if not _is_hidden(path)):
        if not path.name.lower().endswith(file_ending.lower()):
            continue
        found = case_and_channel(path.name[: -len(file_ending)] + file_ending, file_ending)
        if found is None:
            renamed = f"{path.name[: -len(file_ending)]}_0000{file_ending}"
            problems.append(f"{path.name} is not named CASE_0000{file_ending}, such as {renamed}")
        elif found[1] in images.setdefault(found[0], {}):
            problems.append(f"{images[found[0]][found[1]].name} and {path.name} are the same channel of {found[0]}")
        else:
            images[found[0]][found[1]] = path
    return images, problems


def passed_over(folder: Path, cases: Iterable[ImageCase]) -> list[Path]:
    """What a folder has besides the images of these cases, sorted: files of other endings, and subfolders."""
    used = {file for case in cases for file in case.files}
    return sorted(path for path in folder.iterdir() if path not in used and not _is_hidden(path))


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _channel_problems(channels: Mapping[str, set[int]], expected: Collection[int], may_lack: bool) -> Iterator[str]:
    for case, found in channels.items():
        lacking = set() if may_lack else set(expected) - found
        for what, wrong in (("lacks", lacking), ("has unexpected", found - set(expected))):
            if wrong:
                yield f"{case} {what} {', '.join(f'_{channel:04d}' for channel in sorted(wrong))}"
