"""Find the predictions in a folder of results, and the fold of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson
from factorizer_nnunet.nnunet.model_folder import PLANS_FILE, SUMMARY_FILE, ModelFolder, is_fold
from factorizer_nnunet.nnunet.model_name import ModelName, is_cross_validation

CROSS_VALIDATION, PREDICTIONS = "cross-validation", "predictions"


@dataclass(frozen=True)
class FoundPredictions:
    """The predictions in a folder, before their references are known."""

    folder: Path
    kind: str  # CROSS_VALIDATION or PREDICTIONS
    dataset: DatasetJson
    plans: Mapping[str, Any]  # empty without plans.json
    model: ModelFolder | None  # that predicted, if known
    predictions: dict[str, tuple[Path, str | None]] = field(default_factory=dict)  # file and fold of each case
    warnings: list[str] = field(default_factory=list)  # what is missing, with --partial

    @property
    def dataset_name(self) -> str:
        """Such as Dataset004_Hippocampus; empty without plans."""
        return str(self.plans.get("dataset_name", ""))


def find_predictions(
    folder: Path, dataset_file: Path | None, partial: bool, problems: list[str]
) -> FoundPredictions | None:
    """Find the predictions in a folder of results; None if it is not one. Errors are added to ``problems``.

    Args:
        folder: one of those that `results` lists.
        dataset_file: a dataset.json to use instead of the folder's own.
        partial: leave out folds without finished validation, with a warning instead of an error.
        problems: texts with the file and how to fix it.
    """
    if not folder.is_dir():
        problems.append(f"{folder}: {'is not a folder' if folder.exists() else 'does not exist'}")
        return None
    if is_fold(folder):
        problems.append(f"{folder}: is a single fold; give the folder above it, with --partial if folds are missing")
        return None
    folds = ModelFolder(folder).folds()
    model = ModelFolder(folder) if folds else _model_above(folder)
    dataset_file = dataset_file or _own_file(folder, DATASET_FILE)
    if dataset_file is None:
        inner = sorted({path.parent.name for path in folder.glob(f"*/{DATASET_FILE}")})
        below = f"; it contains {', '.join(inner)}: give these folders" if inner else ""
        problems.append(
            f"{folder}: not a folder of nnU-Net results, it has no {DATASET_FILE}{below}; for predictions made by "
            "other programs give --dataset-json FILE"
        )
        return None
    crossed = model is not None or any(is_cross_validation(path.name) for path in (folder, folder.parent))
    found = FoundPredictions(
        folder,
        CROSS_VALIDATION if crossed else PREDICTIONS,
        DatasetJson(_read_json(dataset_file, problems), dataset_file),
        _read_json(plans_file, problems) if (plans_file := _own_file(folder, PLANS_FILE)) else {},
        model,
    )
    ending = found.dataset.file_ending
    if folds:
        _collect_folds(found, partial, problems)
    else:
        own = [] if model is None else model.numbered_folds()
        fold_of = {case: fold.name for fold in own for case in cases_in(fold.validation, ending)}
        found.predictions.update({name: (path, fold_of.get(name)) for name, path in cases_in(folder, ending).items()})
    expected = found.dataset.num_training
    if found.kind == CROSS_VALIDATION and 0 < len(found.predictions) < expected:
        found.warnings.append(f"{folder}: {len(found.predictions)} of {expected} training cases are validated")
    if not found.predictions and not problems:
        problems.append(f"{folder}: no predictions, {_why_empty(folder, bool(folds), ending)}")
    return found


def _why_empty(folder: Path, has_folds: bool, ending: str) -> str:
    if has_folds:
        return "none of its folds has been validated: finish a training with --c, which validates"
    if ModelName.parse(folder.name):
        return "it is a model without trained folds: train one first"
    return f"no file ends with {ending}"


def cases_in(folder: Path, ending: str) -> dict[str, Path]:
    """Files of a folder with this ending, by case name, in order."""
    return {path.name.removesuffix(ending): path for path in sorted(folder.glob(f"*{ending}")) if path.is_file()}


def listed_references(found: FoundPredictions) -> dict[str, Path]:
    """The reference file of each case when nnU-Net scored the folder."""
    summaries = [found.folder / SUMMARY_FILE, *(fold.summary for fold in ModelFolder(found.folder).folds())]
    ignored: list[str] = []  # problems that matter are already reported
    return {
        name: path
        for summary in summaries
        if summary.is_file()
        for name, path in (_summary_references(summary, found.dataset.file_ending, ignored) or {}).items()
    }


def _model_above(folder: Path) -> ModelFolder | None:
    """The model whose collected, perhaps postprocessed, predictions are in the folder."""
    models = (ModelFolder(path) for path in folder.resolve().parents[:2])
    return next((model for model in models if model.folds() and model.plans_file.is_file()), None)


def _own_file(folder: Path, name: str) -> Path | None:
    """A file of the folder, or of the one above it for postprocessed results."""
    return next((path for path in (folder / name, folder.parent / name) if path.is_file()), None)


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return load_json_object(path, "Restore the file")
    except UserError as error:
        problems.append(str(error))
        return {}


def _collect_folds(found: FoundPredictions, partial: bool, problems: list[str]) -> None:
    """Add the cases of all validated folds."""
    ending = found.dataset.file_ending
    assert found.model is not None  # a folder with folds is a model
    for fold in found.model.numbered_folds():
        summary = fold.summary
        if not summary.is_file():
            text = f"{fold.path}: its validation is not finished, {summary} does not exist"
            if partial:
                found.warnings.append(text)
            else:
                resume = "--val" if fold.checkpoint().is_file() else "--c"
                problems.append(f"{text}; finish it with nnUNetv2_train … {fold.name} {resume}, or give --partial")
            continue
        files = cases_in(fold.validation, ending)
        references = _summary_references(summary, ending, problems)
        if references is None:  # then nothing is known about the cases
            continue
        listed = references.keys()
        for name in sorted(listed - files.keys()):
            problems.append(f"{fold.validation / (name + ending)}: is missing, but {summary} has its scores")
        for name in sorted(files.keys() - listed):
            problems.append(f"{files[name]}: is not in {summary}; remove it, or validate the fold again")
        for name, path in files.items():
            if name in found.predictions:
                problems.append(f"{path}: the case was also validated in fold {found.predictions[name][1]}")
            found.predictions[name] = (path, fold.name)


def _summary_references(summary: Path, ending: str, problems: list[str]) -> dict[str, Path] | None:
    """The reference file of each case in nnU-Net's summary.json; None, and a problem, if it is damaged."""
    try:
        content = load_json_object(summary, "Validate the fold again")
        files = [Path(one["reference_file"]) for one in content["metric_per_case"]]
    except UserError as error:
        problems.append(str(error))
        return None
    except (KeyError, TypeError):
        problems.append(f"{summary}: is not a summary.json of nnU-Net. Validate the fold again")
        return None
    return {file.name.removesuffix(ending): file for file in files}
