"""What is in a folder of results: which files are predictions, and of which fold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object

CROSS_VALIDATION, PREDICTIONS = "cross-validation", "predictions"
COLLECTED, ENSEMBLE = "crossval_results_folds_", "ensemble___"  # how nnU-Net's names of folders begin


@dataclass
class Found:
    """A folder on the way to becoming a result."""

    folder: Path
    kind: str
    dataset_json: Mapping[str, Any]
    plans: Mapping[str, Any]
    model: Path | None
    predictions: dict[str, tuple[Path, str | None]] = field(default_factory=dict)  # file and fold of each case
    warnings: list[str] = field(default_factory=list)


def find_predictions(folder: Path, given_json: Path | None, partial: bool, problems: list[str]) -> Found | None:
    """Look into a folder of results; None where it is none. What is wrong is added to ``problems``.

    Args:
        folder: of results, as the package's `results` says.
        given_json: a dataset.json that is taken rather than the folder's own.
        partial: leave out folds that are not validated, with a warning, rather than count them as problems.
        problems: one text each, with the file and the mend.
    """
    if not folder.is_dir():
        problems.append(f"{folder}: {'is no folder' if folder.exists() else 'does not exist'}")
        return None
    if re.fullmatch(r"fold_\w+", folder.name):
        problems.append(f"{folder}: is one fold; give the folder above it, with --partial if not all folds are done")
        return None
    folds = sorted(path for path in folder.glob("fold_*") if path.is_dir())
    model = folder if folds else _model_above(folder)
    dataset_json = _json_of(folder, "dataset.json", given_json, problems)
    if dataset_json is None:
        inner = sorted({path.parent.name for path in folder.glob("*/dataset.json")})
        below = f"; below it are {', '.join(inner)}: give these" if inner else ""
        problems.append(
            f"{folder}: no results of nnU-Net, it has no dataset.json{below}; for predictions made elsewhere give "
            "--dataset-json FILE"
        )
        return None
    plans = _json_of(folder, "plans.json", None, problems) or {}
    ending = dataset_json.get("file_ending", ".nii.gz")
    if folds:
        found = Found(folder, CROSS_VALIDATION, dataset_json, plans, model)
        _collect_folds(found, folds, ending, partial, problems)
    else:
        crossed = model is not None or any(_is_crossed(path.name) for path in (folder, folder.parent))
        found = Found(folder, CROSS_VALIDATION if crossed else PREDICTIONS, dataset_json, plans, model)
        fold_of = {} if model is None else _folds_of_cases(model, ending)
        for path in files_in(folder, ending):
            name = path.name.removesuffix(ending)
            found.predictions[name] = (path, fold_of.get(name))
    expected = dataset_json.get("numTraining", 0)
    if found.kind == CROSS_VALIDATION and 0 < len(found.predictions) < expected:
        found.warnings.append(f"{folder}: {len(found.predictions)} of {expected} training cases are validated")
    if not found.predictions and not problems:
        where = "no fold of it has been validated" if folds else f"no file in it ends with {ending}"
        problems.append(f"{folder}: no predictions, {where}")
    return found


def _is_crossed(name: str) -> bool:
    return name.startswith((COLLECTED, ENSEMBLE))


def _model_above(folder: Path) -> Path | None:
    """The model that a folder of collected predictions, perhaps postprocessed, was made from."""
    above = folder.resolve().parents
    return next((path for path in above[:2] if any(path.glob("fold_*")) and (path / "plans.json").is_file()), None)


def _json_of(folder: Path, name: str, given: Path | None, problems: list[str]) -> dict[str, Any] | None:
    """A JSON file of the folder, of the one above where results are postprocessed, or the one given."""
    for path in (given, folder / name, folder.parent / name):
        if path is not None and (path == given or path.is_file()):
            try:
                return load_json_object(path, "Restore the file")
            except UserError as error:
                problems.append(str(error))
                return {}
    return None


def files_in(folder: Path, ending: str) -> list[Path]:
    """Files of a folder by their ending, in order."""
    return sorted(path for path in folder.glob(f"*{ending}") if path.is_file())


def _collect_folds(found: Found, folds: Sequence[Path], ending: str, partial: bool, problems: list[str]) -> None:
    """Cases of all validated folds; ``fold_all`` has none, since it has seen every case."""
    for fold in folds:
        number = fold.name.removeprefix("fold_")
        if number == "all":
            continue
        validation = fold / "validation"
        summary = validation / "summary.json"
        if not summary.is_file():
            text = f"{fold}: its validation is not finished, there is no {summary}"
            if partial:
                found.warnings.append(text)
            else:
                problems.append(f"{text}; finish it with nnUNetv2_train … {number} --val, or give --partial")
            continue
        files = {path.name.removesuffix(ending): path for path in files_in(validation, ending)}
        listed = set(_summary_references(summary, ending, problems))
        for name in sorted(listed - set(files)):
            problems.append(f"{validation / (name + ending)}: is missing, but {summary} has a score of it")
        for name in sorted(set(files) - listed):
            problems.append(f"{files[name]}: is not in {summary}; remove it, or validate the fold again")
        for name, path in files.items():
            if name in found.predictions:
                problems.append(f"{path}: its case was also validated by fold {found.predictions[name][1]}")
            found.predictions[name] = (path, number)


def _summary_references(summary: Path, ending: str, problems: list[str]) -> dict[str, Path]:
    """Reference file of each case as nnU-Net's summary.json has it."""
    try:
        content = load_json_object(summary, "Validate the fold again")
        files = [Path(one["reference_file"]) for one in content["metric_per_case"]]
    except (UserError, KeyError, TypeError) as error:
        problems.append(str(error) if isinstance(error, UserError) else f"{summary}: is no summary.json of nnU-Net")
        return {}
    return {file.name.removesuffix(ending): file for file in files}


def listed_references(found: Found, ending: str) -> dict[str, Path]:
    """Where nnU-Net found the reference of each case when it scored the folder."""
    summaries = [found.folder / "summary.json", *found.folder.glob("fold_*/validation/summary.json")]
    ignored: list[str] = []  # told already where it matters
    return {
        name: path
        for summary in summaries
        if summary.is_file()
        for name, path in _summary_references(summary, ending, ignored).items()
    }


def _folds_of_cases(model: Path, ending: str) -> dict[str, str]:
    return {
        path.name.removesuffix(ending): fold.name.removeprefix("fold_")
        for fold in model.glob("fold_[0-9]*")
        for path in files_in(fold / "validation", ending)
    }
