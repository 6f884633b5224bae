"""Which files belong to which training case, and all names that nnU-Net would misread or pass over in silence."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.core.path_names import MAX_BYTES, component_problem
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.nnunet.dataset_json import CaseFiles, DatasetJson, expanded
from factorizer_nnunet.nnunet.image_files import case_and_channel, image_name

# Case names that end like nnU-Net's own files next to a case's data: such a case is taken for another's label.
_RESERVED_ENDINGS = ("_seg", "_segFromPrevStage")
_LONGEST_ADDITION = len("_segFromPrevStage.b2nd")  # what nnU-Net appends to a case name
_MACOS_PREFIX = "._"


@dataclass
class Listing:
    """Training cases, what is wrong with their names, and what may be intended; sentences, problems with their fix."""

    cases: list[CaseFiles] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def list_cases(folder: Path, description: DatasetJson) -> Listing:
    """List the training cases below a folder of ``nnUNet_raw`` whose dataset.json has no problems; all at once."""
    listing = Listing()
    if "dataset" in description.content:
        _list_declared(folder, description, listing)
    else:
        _list_found(folder, description, listing)
    for case in listing.cases:
        listing.problems += _name_problems(case)
        for path in (*case.images, case.label):
            problem = file_problem(path)
            if problem is not None:
                listing.problems.append(f"{path}: {problem}")
    if not listing.problems and description.num_training != len(listing.cases):
        names = first_few([case.name for case in listing.cases], 3)
        listing.problems.append(
            f"{description.path} says numTraining {description.num_training}, but there are {len(listing.cases)} "
            f"training cases (the first: {names}). Correct numTraining or add the missing cases"
        )
    return listing


def file_problem(path: Path) -> str | None:
    """Why a file cannot be read, with a fix; None if it can. Never blocks, as opening a named pipe would."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            return f"is a link to {os.readlink(path)}, which does not exist. Restore the file or correct the link"
        return "does not exist. Add the file"
    except OSError as error:
        return f"cannot be read ({error.strerror}). Correct the link, or the permissions of file and folder"
    if not stat.S_ISREG(mode):
        return f"is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}. Replace it with the image"
    if not os.access(path, os.R_OK):
        return "may not be read. Change its permissions"
    return None


def _list_found(folder: Path, description: DatasetJson, listing: Listing) -> None:
    """Cases by the files in imagesTr and labelsTr."""
    images, labels, ending = folder / "imagesTr", folder / "labelsTr", description.file_ending
    channels: defaultdict[str, set[int]] = defaultdict(set)
    for name in _names_in(images, ending, listing):
        found = case_and_channel(name, ending)
        if found is None:
            listing.problems.append(
                f"{images / name} is not named as nnU-Net expects: CASE_0000{ending} with the channel as four digits, "
                "counted from 0000. Rename or remove it"
            )
        else:
            channels[found[0]].add(found[1])
    label_names = set(_names_in(labels, ending, listing))
    if not channels and not listing.problems:
        listing.problems.append(
            f"no training images in {images}: no file CASE_0000{ending}. Put the images there or correct file_ending"
        )
    num_channels = len(description.channel_names)
    in_one_file = all(numbers == {0} for numbers in channels.values())  # colours, for example
    wanted = {0} if in_one_file else set(range(num_channels))
    for case, numbers in channels.items():
        if numbers != wanted:
            listing.problems.append(
                f"case {case} in {images} has the channels {sorted(numbers)}, but {description.path} names "
                f"{num_channels} (counted from 0). Add or remove image files, or correct channel_names"
            )
        elif case + ending not in label_names:
            listing.problems.append(
                f"case {case} has no label file {labels / (case + ending)}. Add the label or move its images away"
            )
        else:
            files = tuple(images / image_name(case, number, ending) for number in sorted(numbers))
            listing.cases.append(CaseFiles(case, files, labels / (case + ending)))
    if unused := sorted(label_names - {case + ending for case in channels}):
        listing.warnings.append(f"{labels} has labels without images, which are not used: {first_few(unused)}")


def _names_in(folder: Path, ending: str, listing: Listing) -> Iterator[str]:
    """Names of a folder that end as dataset.json says; reports those that only nearly do."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        listing.problems.append(f"there is no folder {folder}. Put the files there {_OR_LIST}")
        return
    except OSError as error:
        listing.problems.append(f"{folder} cannot be read ({error.strerror}). Correct its permissions {_OR_LIST}")
        return
    metadata = [name for name in names if name.startswith(_MACOS_PREFIX) and name.lower().endswith(ending.lower())]
    if metadata:
        listing.problems.append(
            f"{folder} has {count_of(len(metadata), 'file')} that macOS wrote next to the images or labels "
            f"({first_few(metadata, 3)}); nnU-Net would take them for cases. Remove them: "
            f"find {folder} -name '._*' -delete"
        )
    other_case = [name for name in names if name.lower().endswith(ending.lower()) and not name.endswith(ending)]
    if other_case:
        listing.problems.append(
            f"{folder} has files whose ending differs from file_ending {ending!r} in upper and lower case "
            f"({first_few(other_case, 3)}); nnU-Net would pass over them. Rename them"
        )
    for name in names:
        if name.endswith(ending) and name not in metadata:
            if component_problem(name) is None:
                yield name
            else:
                listing.problems.append(f"{folder}: the file name {name!r} {component_problem(name)}. Rename it")


_OR_LIST = "or list them under dataset in dataset.json"


def _list_declared(folder: Path, description: DatasetJson, listing: Listing) -> None:
    """Cases listed under ``dataset`` in dataset.json."""
    declared = description.content["dataset"]
    num_channels = len(description.channel_names)
    where = f'{description.path}: "dataset"'
    if not isinstance(declared, dict) or not declared:
        listing.problems.append(f'{where} must map each case to {{"images": [...], "label": ...}}. Correct it')
        return
    for name, entry in declared.items():
        images, label = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        if not isinstance(images, list) or not images or not all(isinstance(one, str) for one in [*images, label]):
            listing.problems.append(
                f'{where}, case {name!r} must be {{"images": [FILE, …], "label": FILE}}, not {entry!r}. Correct it'
            )
        elif len(images) not in (1, num_channels):
            listing.problems.append(
                f"{where}, case {name!r} lists {len(images)} images, but channel_names has {num_channels} channels. "
                "List one file for each channel"
            )
        elif (problem := component_problem(name)) is not None:
            listing.problems.append(f"{where}: the case name {name!r} {problem}. Rename the case")
        else:
            files = [expanded(folder, file) for file in (*images, label)]
            listing.cases.append(CaseFiles(name, tuple(files[:-1]), files[-1]))


def _name_problems(case: CaseFiles) -> Iterator[str]:
    if case.name.endswith(_RESERVED_ENDINGS):
        yield (
            f"case {case.name}: nnU-Net keeps labels next to preprocessed images in files that end like this name, so "
            "the case would be in no fold, or taken for another's label. Rename its files"
        )
    if len(case.name.encode()) + _LONGEST_ADDITION > MAX_BYTES:
        yield f"case {case.name}: the name is too long for the files that nnU-Net makes of it. Shorten it"
