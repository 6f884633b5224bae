"""What each segmentation was predicted from, so that it is never taken for one of another image.

A segmentation has only the name of its case. The record next to it, in a hidden folder, has stamps of the images, of
the model with its settings, and of the files that were written. Imports neither torch nor nnU-Net.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.file_stamps import (
    ADDED,
    CHANGED,
    Source,
    Stamp,
    changed_sources,
    in_words,
    notes_of,
    record_sources,
    stamp_of_value,
    take_stamps,
)
from factorizer_nnunet.nnunet.image_files import ImageCase

RECORDS = ".factorizer"  # folder of the records and locks, in the folder of the segmentations
_IMAGE, _PREVIOUS, _MODEL, _OUTPUT = "image", "previous stage", "model", "written"


def record_file(folder: Path, case: str) -> Path:
    """The record of a case."""
    return folder / RECORDS / f"{case}.json"


def image_stamps(case: ImageCase) -> dict[str, Stamp]:
    """Stamps of the files that a case is predicted from, by their role, and an entry for each absent channel.

    Raises:
        OSError: one cannot be read.
    """
    return take_stamps(_images(case))


def record_prediction(
    folder: Path,
    case: str,
    images: Mapping[str, Source],
    model: Stamp,
    outputs: Sequence[Path],
    warnings: Sequence[str] = (),
) -> None:
    """Write the record of a case, after its files.

    Args:
        folder: of the segmentations.
        case: its name.
        images: from ``image_stamps``, taken before they were read.
        model: stamp of the model and its settings.
        outputs: the files that were written.
        warnings: about the images, for whoever finds the case complete later.

    Raises:
        OSError: a file cannot be read, or the record not written.
    """
    # Outputs are among the sources: an edited one must be named, not make the record invalid.
    record_sources(record_file(folder, case), {**images, _MODEL: model, **_outputs(outputs)}, made={}, notes=warnings)


def recorded_warnings(folder: Path, case: str) -> tuple[str, ...]:
    """What was unusual in the images of a case when it was predicted."""
    return notes_of(record_file(folder, case))


@dataclass(frozen=True)
class Comparison:
    """How files compare with the record of their prediction.

    Attributes:
        recorded: whether there is a record.
        images: images that have changed since, such as "image 0 (changed)".
        model: whether model or settings have changed.
        edited: files that were changed after they had been written.
    """

    recorded: bool
    images: tuple[str, ...] = ()
    model: bool = False
    edited: tuple[str, ...] = ()


def compare(folder: Path, case: ImageCase, outputs: Sequence[Path], model: Stamp | None = None) -> Comparison:
    """Compare the files of a case with its record; reads them only where times differ but sizes do not.

    Args:
        folder: of the segmentations.
        case: with the images that it has now.
        outputs: files that exist; others are not compared.
        model: stamp of the model and its settings; None: not compared.
    """
    sources: dict[str, Source] = {**_images(case), **_outputs(outputs)}
    if model is not None:
        sources[_MODEL] = model
    changes = changed_sources(record_file(folder, case.name), sources)
    if changes is None:
        return Comparison(recorded=False)
    return Comparison(
        recorded=True,
        images=tuple(in_words({name: changes[name] for name in changes if name.startswith((_IMAGE, _PREVIOUS))})),
        model=model is not None and _MODEL in changes,
        edited=tuple(
            name.removeprefix(f"{_OUTPUT} ")
            for name, change in changes.items()
            if name.startswith(_OUTPUT) and change == CHANGED
        ),
    )


def changed_images(folder: Path, case: str, images: Mapping[int, Path]) -> dict[int, str]:
    """Channels whose image is not the one of the record: "removed" or "changed" by number; empty without a record.

    Args:
        folder: of the segmentations.
        case: its name.
        images: the files that there are now, by channel.
    """
    changes = changed_sources(
        record_file(folder, case), {f"{_IMAGE} {number}": file for number, file in images.items()}
    )
    numbered = {re.fullmatch(rf"{_IMAGE} (\d+)", name): change for name, change in (changes or {}).items()}
    return {int(found[1]): change for found, change in numbered.items() if found is not None and change != ADDED}


def is_edited(folder: Path, case: str, file: Path) -> bool:
    """Whether a file that was written with a prediction was changed afterwards; False without a record."""
    changes = changed_sources(record_file(folder, case), _outputs([file])) or {}
    return any(changes.get(name) == CHANGED for name in _outputs([file]))


def _images(case: ImageCase) -> dict[str, Source]:
    images: dict[str, Source] = {f"{_IMAGE} {number}": file for number, file in case.numbered_files.items()}
    images |= {f"{_IMAGE} {number}, absent": stamp_of_value("absent") for number in case.absent}
    # The first has no number: older records know only one.
    previous: dict[str, Source] = {
        f"{_PREVIOUS} {number}" if number else _PREVIOUS: file for number, file in enumerate(case.previous)
    }
    return images | previous


def _outputs(files: Sequence[Path]) -> dict[str, Path]:
    return {f"{_OUTPUT} {file.name}": file for file in files}
