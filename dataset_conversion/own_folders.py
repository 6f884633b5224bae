"""Describe folders of one's own images and masks as a release, so that they are checked and converted like one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.dataset_conversion.cases import FILE_ENDING
from factorizer_nnunet.dataset_conversion.discover import SourceListing, list_files
from factorizer_nnunet.dataset_conversion.layout import NiftiFile
from factorizer_nnunet.dataset_conversion.own_names import (
    OwnFile,
    images_of,
    is_mask_name,
    masks_of,
    several_of_a_patient,
    unlabelled_images_of,
)
from factorizer_nnunet.dataset_conversion.spec import Channel, LabelMap, LabelScheme, Release
from factorizer_nnunet.imaging.labels import count_labels, integer_labels
from factorizer_nnunet.imaging.volume import read_volume

KEY = "folders"
_BACKGROUND, _IGNORE = "background", "ignore"  # names with a meaning of their own in nnU-Net
_IMAGES, _MASKS, _UNLABELLED = "images", "masks", "unlabelled"
_MOST_LABELS = 100  # more different values than this are not a mask
_SOME = 8
_NAMING = (
    "CT if it is computed tomography, which nnU-Net normalises by its Hounsfield units, otherwise a name such as T1"
)


def describe_folders(
    images: Sequence[Path],
    masks: Path,
    test_images: Sequence[Path],
    channels: Sequence[str] | None,
    labels: Sequence[str],
    jobs: int,
) -> tuple[Release, SourceListing]:
    """Return a release with the cases of the folders, and their files under the names that its patterns expect.

    Args:
        images: folders of images, one file for each case and channel.
        masks: folder of masks; it may be within ``images`` or the same folder, where masks are known by their names.
        test_images: folders of images to predict, without masks.
        channels: ``NAME`` or ``NAME=ENDING`` for each, with the ending of the images' file names; None if these endings
            are the names.
        labels: ``NAME`` or ``NAME=VALUE`` for each, with values 1, 2, … unless given.
        jobs: processes that read the masks if ``labels`` is empty, to say which values they have.

    Raises:
        UserError: a folder does not exist or has no NIfTI files, or channels or labels are not named or do not fit.
    """
    listing, image_files, mask_files = _list(images, masks)
    own_masks = masks_of(mask_files)
    own_images = images_of(image_files, {mask.case for mask in own_masks})
    if not own_masks or not own_images:
        where, what = (images[0], "images") if own_masks else (masks, "masks")
        raise UserError(f"{where} has no {what} with the ending {FILE_ENDING} or .nii: convert them to NIfTI first")
    by_case = {mask.case.casefold() for mask in own_masks}
    matched = [image for image in own_images if image.case.casefold() in by_case]
    if not matched:
        raise UserError(
            f"no image has the name of a mask: images are called {_names(own_images)}, masks {_names(own_masks)}. Give "
            "both the name of their case, such as p01.nii.gz, or p01_t1.nii.gz and p01_seg.nii.gz"
        )
    found = {image.channel.casefold(): image.channel for image in matched}
    tests = list_files(test_images)
    listing.problems += tests.problems
    own_tests = unlabelled_images_of(tests.files, set(found))
    endings = _named_channels(channels, found, [] if labels else [_labels_found(own_masks, jobs)])
    listing.sources = (*listing.sources, *tests.sources)
    listing.files = [
        *(NiftiFile(image.path, _shown(_IMAGES, image)) for image in own_images),
        *(NiftiFile(mask.path, f"{_MASKS}/{mask.case}{FILE_ENDING}") for mask in own_masks),
        *(NiftiFile(image.path, _shown(_UNLABELLED, image)) for image in own_tests),
    ]
    return _release(endings, parse_labels(labels), [mask.case for mask in own_masks]), listing


def parse_labels(texts: Sequence[str]) -> dict[str, int]:
    """The value of each label, from ``NAME`` (then 1, 2, …, by its place) or ``NAME=VALUE``.

    Raises:
        UserError: a text has another form, or a name or value is given twice or has another meaning.
    """
    values: dict[str, int] = {}
    for number, text in enumerate(texts, start=1):
        match = re.fullmatch(r"(?P<name>[^=]*[^=\s])(?:=(?P<value>\d+))?", text)
        if match is None:
            raise UserError(f"--labels {text}: expected NAME or NAME=VALUE, such as tumor=1")
        name, value = match["name"].strip(), int(match["value"] or number)
        if name.casefold() == _BACKGROUND or value == 0:
            raise UserError(f"--labels {text}: 0 is always the background, which is not named")
        if name in values or value in values.values():
            raise UserError(f"--labels {' '.join(texts)}: each name and each value may be given once")
        values[name] = value
    if _IGNORE in values and list(values)[-1] != _IGNORE:
        raise UserError(f"--labels {' '.join(texts)}: nnU-Net wants {_IGNORE} as the last label")
    return values


def _list(images: Sequence[Path], masks: Path) -> tuple[SourceListing, list[NiftiFile], list[NiftiFile]]:
    """The listing of all sources, their images and their masks."""
    of_images, of_masks = list_files(images), list_files([masks])
    paths_of_masks = {file.path for file in of_masks.files}
    mask_files = of_masks.files
    if paths_of_masks >= {file.path for file in of_images.files}:  # masks are next to the images
        mask_files = [file for file in of_masks.files if is_mask_name(file)]
        paths_of_masks = {file.path for file in mask_files}
    image_files = [file for file in of_images.files if file.path not in paths_of_masks]
    problems = list(dict.fromkeys([*of_images.problems, *of_masks.problems]))
    sources = (*of_images.sources, *of_masks.sources)
    return SourceListing(sources, problems=problems), image_files, mask_files


def _named_channels(declared: Sequence[str] | None, found: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """The channels, or one error with what is wrong with them and the other ``problems``."""
    endings: dict[str, str] = {}
    try:
        endings = _channels(declared, found)
    except UserError as error:
        problems.insert(0, str(error))
    if problems:
        raise UserError("\n".join(problems))
    return endings


def _channels(declared: Sequence[str] | None, found: Mapping[str, str]) -> dict[str, str]:
    """The ending of the file names of each channel, by the channel's name; ``found`` has the endings by casefold.

    Raises:
        UserError: channels are not named, or a name has no ending.
    """
    endings = sorted(found)
    numbered = all(re.fullmatch(r"\d*", ending) for ending in endings)
    if declared is None:
        if len(endings) == 1 and numbered:
            raise UserError(f"the channel has no name: give one with --channels, {_NAMING}")
        if numbered:
            raise UserError(
                f"the channels {', '.join(endings)} have no names: give one for each with --channels, {_NAMING}"
            )
        if "" in endings:
            raise UserError(
                f"some images have only the name of their case, others end with {_shown_endings(found)}: name the "
                "channels, such as --channels T1= FLAIR=flair"
            )
        return {found[ending]: ending for ending in endings}
    chosen: dict[str, str] = {}
    for number, text in enumerate(declared):
        name, equals, ending = (part.strip() for part in text.partition("="))
        ending = ending.casefold()
        if not equals:
            ending = name.casefold()
            if ending not in found and len(declared) == len(endings) and (numbered or len(endings) == 1):
                ending = endings[number]
        if ending not in found or not name or name in chosen or ending in chosen.values():
            raise UserError(
                f"--channels {' '.join(declared)}: {text} fits no images, whose names end with "
                f"{_shown_endings(found)}; say which of them it is, such as --channels T1={endings[0]}"
            )
        chosen[name] = ending
    return chosen


def _shown_endings(found: Mapping[str, str]) -> str:
    return ", ".join(found[ending] or "the case" for ending in sorted(found))


def _labels_found(masks: Sequence[OwnFile], jobs: int) -> str:
    """The message that asks for the names of labels, with the values that the masks have."""
    cases: Counter[int] = Counter()
    for found in map_unordered(_values, [mask.path for mask in masks], jobs, "reading masks"):
        cases.update(found)
    values = sorted(cases)
    if len(values) > _MOST_LABELS:
        return (
            f"the masks have {len(values)} different values, so they look like images: give the folder of label masks"
        )
    shown = first_few([f"{value} (in {count_of(cases[value], 'mask')})" for value in values], _SOME)
    example = " ".join(f"NAME={value}" for value in values[:_SOME]) or "NAME=1"
    return f"the labels have no names. The masks have the values {shown or '0 only'}: name them with --labels {example}"


def _values(path: Path) -> frozenset[int]:
    """The values of a mask other than 0; none of one that cannot be used, which the conversion reports."""
    try:
        return frozenset(count_labels(integer_labels(read_volume(path).values)).keys() - {0})
    except (OSError, ValueError):
        return frozenset()


def _release(endings: Mapping[str, str], labels: Mapping[str, int], cases: Sequence[str]) -> Release:
    several = several_of_a_patient(cases)
    patients_hidden = (
        f"{first_few(several, 4)} look like cases of the same patients: give --patients a CSV file with the columns "
        "case,patient, so that training and validation share none"
    )
    written = {0: 0} | {value: number for number, value in enumerate(labels.values(), start=1)}
    scheme = LabelScheme(LabelMap(written), {name: (written[value],) for name, value in labels.items()})
    folders = f"(?:{_IMAGES}|{_UNLABELLED})"
    return Release(
        key=KEY,
        title="Own images",
        case="[^/]+",
        channels=tuple(
            Channel(name, f"{folders}/{re.escape(ending)}/{{case}}" if ending else f"{folders}/{{case}}")
            for name, ending in endings.items()
        ),
        label=(f"{_MASKS}/{{case}}",),
        schemes=(scheme,),
        root=_IMAGES,
        unlabelled=_UNLABELLED,
        folders_on_disk=False,
        patients_hidden=patients_hidden if several else "",
        values_hint="Name every value that the masks have: --labels NAME=VALUE …, or replace mistakes with --remap",
        submission=f"{{case}}{FILE_ENDING}",
        example=f"p01{FILE_ENDING}",
        licence="",
        reference="",
    )


def _shown(folder: str, image: OwnFile) -> str:
    """The path that the release's patterns see."""
    return "/".join(filter(None, (folder, image.channel.casefold(), f"{image.case}{FILE_ENDING}")))


def _names(files: Collection[OwnFile]) -> str:
    return first_few([file.path.name for file in files], 3)
