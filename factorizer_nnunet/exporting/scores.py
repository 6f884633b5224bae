"""The measured scores of a model, without names of cases: of its validation, and of test cases if they were scored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, CHECKPOINT_FINAL, SUMMARY_FILE, ModelFolder

VALIDATION = "cross-validation"
METRIC = "Dice"  # in nnU-Net's summary.json and ours
_FIX = "Make it again with nnUNetv2_train --val, nnUNetv2_evaluate_folder or factorizer-nnunet evaluate"


@dataclass(frozen=True)
class Score:
    """The mean Dice of a region over the cases in which it is defined.

    Attributes:
        cases: their number; a region that neither the label nor the prediction of a case has is not defined there.
    """

    region: str
    mean: float
    cases: int


@dataclass(frozen=True)
class ScoredCases:
    """The scores of some cases.

    Attributes:
        title: which cases they are.
        note: what else must be known about them, or "".
    """

    title: str
    cases: int
    scores: tuple[Score, ...]
    note: str = ""

    def content(self) -> dict[str, Any]:
        """The entry in ``scores.json``."""
        return asdict(self)


def validation_scores(
    model: ModelFolder, folds: Sequence[str], checkpoint: str, dataset: DatasetJson
) -> ScoredCases | None:
    """The scores of the validation cases of some folds together; None if no fold has any of this checkpoint.

    The fold ``all`` is left out: it is validated on cases that it was trained on.

    Raises:
        UserError: a ``summary.json`` cannot be used.
    """
    if lacking_scores(checkpoint) is not None:
        return None
    files = {fold: model.fold(fold).summary for fold in folds if fold != ALL_CASES}
    contents = {fold: load_json_object(file, _FIX) for fold, file in files.items() if file.is_file()}
    if not contents:
        return None
    cases = [entry for fold, content in contents.items() for entry in _cases(content, files[fold])]
    notes = []
    if len(contents) < len(folds):
        lacking = [fold for fold in folds if fold not in contents]
        notes.append(f"without fold {', '.join(lacking)}, which has no held-out cases or was not validated")
    if any("scores_of" in content for content in contents.values()):  # its text names a folder of this machine
        notes.append("of the original model, with the settings it was trained with")
    title = f"{VALIDATION} (fold {', '.join(contents)}): each case predicted by the fold that was not trained on it"
    return ScoredCases(title, len(cases), tuple(_scores(cases, dataset)), "; ".join(notes))


def lacking_scores(checkpoint: str) -> str | None:
    """Which scores the model folder has, but not of this checkpoint; None if it has all of them."""
    if checkpoint == CHECKPOINT_FINAL:
        return None
    return f"those of the validation are of {CHECKPOINT_FINAL}, not of {checkpoint}"


def given_scores(path: Path, dataset: DatasetJson) -> ScoredCases:
    """The scores in a ``summary.json``, or in a folder that has one.

    Raises:
        UserError: it cannot be used.
    """
    file = path / SUMMARY_FILE if path.is_dir() else path
    cases = _cases(load_json_object(file, _FIX), file)
    scores = tuple(_scores(cases, dataset))
    if not scores:
        raise UserError(f"{file} has no scores of {', '.join(dataset.regions)}: it is not of this model. {_FIX}")
    return ScoredCases("cases that were scored separately, such as test cases", len(cases), scores)


def _cases(content: Mapping[str, Any], file: Path) -> list[Mapping[str, Any]]:
    """The metrics of each case, by the key of the region."""
    try:
        cases = [entry["metrics"] for entry in content["metric_per_case"]]
        if not all(isinstance(values, Mapping) for case in cases for values in case.values()):
            raise TypeError("metrics are not objects")
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a summary of scores as nnU-Net writes it ({error!r}). {_FIX}") from error
    return cases


def _scores(cases: Sequence[Mapping[str, Any]], dataset: DatasetJson) -> Iterable[Score]:
    for region, key in dataset.region_keys.items():
        values = [case.get(key, {}).get(METRIC) for case in cases]
        numbers = [float(one) for one in values if isinstance(one, int | float) and math.isfinite(one)]
        if numbers:
            yield Score(region, math.fsum(numbers) / len(numbers), len(numbers))
