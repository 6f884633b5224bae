"""What the passes of a prediction have in common, case by case: a file next to the record of each prediction.

Written by ``predict --quality`` and read by whatever estimates how good a segmentation is. Imports neither torch nor
nnU-Net.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object, number_or_nan, without_nan
from factorizer_nnunet.nnunet.prediction_record import RECORDS

PASSES_ENDING = ".passes.json"
QUALITY_FILES = ("quality.csv", "quality.json", "quality.html")  # about all cases of a folder


@dataclass(frozen=True)
class RegionPasses:
    """A region of a case in the passes of a model. NaN: no pass finds it.

    Attributes:
        agreement: mean Dice of pairs of mirrored passes, for each fold; NaN also for a single pass.
        confidence: Dice that the probabilities promise, for each fold: see ``expected_dice``.
        fold_agreement: mean Dice of pairs of folds; NaN also for a single fold.
        volumes_ml: for each member (each fold; of a single fold, each mirrored pass).
        lesions: number of connected parts (26 neighbours), for each member.
    """

    agreement: tuple[float, ...]
    confidence: tuple[float, ...]
    fold_agreement: float
    volumes_ml: tuple[float, ...]
    lesions: tuple[int, ...]

    @property
    def mean_agreement(self) -> float:
        """Of the folds that find the region; NaN if none does, or each had a single pass."""
        return _mean(self.agreement)

    @property
    def mean_confidence(self) -> float:
        """Of the folds that find the region; NaN if none does."""
        return _mean(self.confidence)

    @property
    def is_empty(self) -> bool:
        """Whether no member finds the region."""
        return not any(self.volumes_ml)


@dataclass(frozen=True)
class PassRecord:
    """A case in the passes of a model.

    Attributes:
        num_passes: of each fold: 1, or more with mirroring.
        spacing_mm: of the image's voxels, in the axis order of its reader.
        size_mm: of the image without its empty border, likewise.
        channels: statistics of each channel as the network sees it, by name.
        regions: by name.
    """

    num_passes: int
    spacing_mm: tuple[float, ...]
    size_mm: tuple[float, ...]
    channels: tuple[Mapping[str, float], ...]
    regions: Mapping[str, RegionPasses]


def expected_dice(found: float, everywhere: float, count: float) -> float:
    """The Dice of a mask with a random reference of the given probabilities, in the usual approximation.

    Args:
        found: sum of the probabilities inside of the mask.
        everywhere: sum of the probabilities in the image.
        count: voxels of the mask.

    Returns:
        2 · found / (everywhere + count); NaN for an empty mask.
    """
    return 2 * found / (everywhere + count) if count else math.nan


def passes_file(folder: Path, case: str) -> Path:
    """The file of a case in a folder of predictions."""
    return folder / RECORDS / f"{case}{PASSES_ENDING}"


def content_of(records: Sequence[PassRecord]) -> dict[str, Any]:
    """A case as JSON, one record for each model."""
    return {"models": [without_nan(asdict(record)) for record in records]}


def records_of(content: Mapping[str, Any]) -> list[PassRecord]:
    """The inverse of ``content_of``.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is something else.
    """
    return [_record(entry) for entry in content["models"]]


def read_passes(file: Path) -> list[PassRecord]:
    """The records of a case, one for each model.

    Raises:
        UserError: the file cannot be read.
    """
    fix = "Remove it and predict the case again with --quality"
    try:
        return records_of(load_json_object(file, fix))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not a record of --quality ({error!r}). {fix}") from error


def passes_text(records: Sequence[PassRecord]) -> str:
    """The file of a case."""
    return json.dumps(content_of(records), indent=1)


def _record(entry: Mapping[str, Any]) -> PassRecord:
    return PassRecord(
        num_passes=int(entry["num_passes"]),
        spacing_mm=tuple(float(mm) for mm in entry["spacing_mm"]),
        size_mm=tuple(float(mm) for mm in entry["size_mm"]),
        channels=tuple({str(name): float(value) for name, value in one.items()} for one in entry["channels"]),
        regions={
            str(name): RegionPasses(
                agreement=tuple(map(number_or_nan, one["agreement"])),
                confidence=tuple(map(number_or_nan, one["confidence"])),
                fold_agreement=number_or_nan(one["fold_agreement"]),
                volumes_ml=tuple(float(ml) for ml in one["volumes_ml"]),
                lesions=tuple(int(count) for count in one["lesions"]),
            )
            for name, one in entry["regions"].items()
        },
    )


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
