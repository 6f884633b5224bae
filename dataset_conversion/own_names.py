"""Which case and channel the files of one's own images and masks belong to, from their names alone.

Masks name the cases: ``p01_seg``, ``segmentation-1`` and ``p01/mask`` are masks of the cases p01, 1 and p01. An image
belongs to the case whose name it begins or ends with, or in whose folder it is; the rest of its name is its channel,
such as ``t1`` in ``p01_t1`` and ``p01/t1``, or "" if nothing is left.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from factorizer_nnunet.dataset_conversion.layout import ENDINGS, NiftiFile

_MASK_WORDS = (
    "seg|segs|segmentation|segmentations|dseg|mask|masks|msk|label|labels|labelmap|gt|ground[-_ ]?truth|truth|manual|"
    "roi|annotation|annotations|contour|lesion|lesions|tumor|tumour|reference|target"
)
_IMAGE_WORDS = "image|images|imaging|img|volume|vol|scan"
_SEPARATOR = r"[-_. ]"


@dataclass(frozen=True)
class OwnFile:
    """A file, its case, and for images its channel: what its name says besides the case."""

    path: Path
    case: str
    channel: str = ""


def is_mask_name(file: NiftiFile) -> bool:
    """Whether a file has a name of masks, such as ``p01_seg`` or ``mask``."""
    return _without(_MASK_WORDS, stem(file)) != stem(file)


def masks_of(files: Collection[NiftiFile]) -> list[OwnFile]:
    """The case of each mask: its name without a word for masks, or its folder if all have the same name."""
    names = [_without(_MASK_WORDS, stem(file)) for file in files]
    by_folder = len(files) > 1 and len({name.casefold() for name in names}) == 1
    return [
        OwnFile(file.path, name if name and not by_folder else _folder(file))
        for file, name in zip(files, names, strict=True)
    ]


def images_of(files: Iterable[NiftiFile], cases: Collection[str]) -> list[OwnFile]:
    """Case and channel of each image, where ``cases`` have masks.

    Images of other cases end with one of the channels found among those with masks, or have no channel.
    """
    known = {case.casefold(): case for case in cases}
    found: list[OwnFile] = []
    others: list[NiftiFile] = []
    for file in files:
        matched = _of_known_case(file, known)
        found += [matched] if matched else []
        others += [] if matched else [file]
    channels = {image.channel.casefold() for image in found}
    return found + [_of_new_case(file, channels) for file in others]


def unlabelled_images_of(files: Iterable[NiftiFile], channels: Collection[str]) -> list[OwnFile]:
    """Case and channel of images without masks, with the ``channels`` of those that have one."""
    return [_of_new_case(file, {channel.casefold() for channel in channels}) for file in files]


def several_of_a_patient(cases: Iterable[str]) -> list[str]:
    """Cases that look like several of one patient, such as ``p01_day1`` and ``p01_day2``: only their ends differ.

    What they share has a number, and so do the names of other patients; ``heart_1`` and ``heart_2`` share none.
    """
    shared: dict[str, list[str]] = {}
    for case in sorted(cases):
        parts = re.split(f"(?={_SEPARATOR})", case)
        shared.setdefault("".join(parts[:-1]), []).append(case)
    patients = [patient for patient in shared if re.search(r"\d", patient)]
    several = [case for patient in patients if len(shared[patient]) > 1 for case in shared[patient]]
    return several if len(patients) > 1 else []


def stem(file: NiftiFile) -> str:
    """The name of a file without .nii or .nii.gz."""
    name = PurePosixPath(file.shown).name
    ending = next(ending for ending in ENDINGS if name.lower().endswith(ending))
    return name[: -len(ending)]


def _of_known_case(file: NiftiFile, known: dict[str, str]) -> OwnFile | None:
    """The image of the longest case name that its name begins or ends with, or of the case that its folder names."""
    for text in dict.fromkeys((stem(file), _without(_IMAGE_WORDS, stem(file)))):
        for case, channel in _splits(text):
            if case.casefold() in known:
                return OwnFile(file.path, known[case.casefold()], _without(_IMAGE_WORDS, channel))
    folder = _folder(file)
    if folder.casefold() in known:
        return OwnFile(file.path, known[folder.casefold()], _without(_IMAGE_WORDS, stem(file)))
    return None


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """A name as case and channel in all ways, the longest case first: ``a_b_c``; ``a_b``, ``b_c``; ``a``, ``c``."""
    yield text, ""
    places = [match.start() for match in re.finditer(_SEPARATOR, text)]
    splits = [(text[:at], text[at + 1 :]) for at in places] + [(text[at + 1 :], text[:at]) for at in places]
    yield from sorted(splits, key=lambda split: -len(split[0]))


def _of_new_case(file: NiftiFile, channels: Collection[str]) -> OwnFile:
    """An image of a case that has no mask: its channel is one of ``channels`` (casefolded)."""
    name = _without(_IMAGE_WORDS, stem(file))
    if name.casefold() in channels:  # also "", of ``p01/image``
        return OwnFile(file.path, _folder(file), name)
    for case, channel in _splits(name):
        if channel and channel.casefold() in channels:
            return OwnFile(file.path, case, channel)
    return OwnFile(file.path, name or _folder(file))


def _without(words: str, name: str) -> str:
    """A name without words at its end, else at its beginning, and the separators there; "" if it is such a word."""
    if re.fullmatch(words, name, re.IGNORECASE):
        return ""
    shorter = re.sub(rf"(?:{_SEPARATOR}+(?:{words}))+$", "", name, flags=re.IGNORECASE)
    if shorter == name:
        shorter = re.sub(rf"^(?:{words})(?:{_SEPARATOR}+|(?=\d))", "", name, flags=re.IGNORECASE)
    return shorter or name


def _folder(file: NiftiFile) -> str:
    return file.path.parent.name
