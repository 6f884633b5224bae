"""Which dataset.json says what label values mean: the predictions' own, or that of the references' data set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, LABELS_KEY, DatasetJson

_FIX = "Give another file with --dataset-json"


def find_dataset_json(predictions: Path, references: Path) -> DatasetJson | None:
    """The dataset.json of two folders, however their paths are spelled.

    Predictions have one in their folder or above the fold, references next to their folder or in it. If both have one,
    they must agree about labels; the predictions' is returned.

    Raises:
        UserError: a file cannot be read, or the two contradict each other.
    """
    own = of_predictions(predictions)
    theirs = of_references(references)
    if own is not None and theirs is not None:
        check_agreement(own, theirs)
    return own or theirs


def of_predictions(folder: Path) -> DatasetJson | None:
    """The dataset.json in a folder of predictions, or above the fold that it is the validation of."""
    return _first(place for path in _spellings(folder) for place in (path, path.parent.parent))


def of_references(folder: Path) -> DatasetJson | None:
    """The dataset.json next to a folder such as labelsTr, or in it."""
    return _first(place for path in _spellings(folder) for place in (path.parent, path))


def check_agreement(predictions: DatasetJson, references: DatasetJson) -> None:
    """Raise a UserError if two files give the labels of predictions and references different values."""
    if predictions.path.resolve() == references.path.resolve():
        return
    first, second = (
        {re.sub(r"[\W_]+", "", name.casefold()): frozenset(values) for name, values in one.labels.items()}
        for one in (predictions, references)
    )
    if first != second:
        raise UserError(
            f"{predictions.path} of the predictions and {references.path} of the references have different labels: "
            f"{predictions.content[LABELS_KEY]} and {references.content[LABELS_KEY]}. Make the label values agree, or "
            "name the file that is right for both with --dataset-json"
        )


def _spellings(folder: Path) -> tuple[Path, ...]:
    """The folder itself, then the path by which it was given if that leads through links."""
    folder = folder.expanduser()
    return folder.resolve(), Path(os.path.abspath(folder))


def _first(places: Iterable[Path]) -> DatasetJson | None:
    file = next((place / DATASET_FILE for place in places if (place / DATASET_FILE).is_file()), None)
    return None if file is None else DatasetJson.read(file, _FIX)
