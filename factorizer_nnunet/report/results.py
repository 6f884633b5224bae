"""What a folder of results holds: which cases, of which fold, and what was trained to get them.

A folder is one of nnU-Net's: a model (``TRAINER__PLANS__CONFIGURATION`` with ``fold_X/validation``), its collected
cross-validation (``crossval_results_folds_…``), an ensemble (``ensemble___…``), or the output of nnUNetv2_predict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factorizer_nnunet.errors import UserError
from factorizer_nnunet.files import load_json_object
from factorizer_nnunet.report.sources import Sources
from factorizer_nnunet.report.training import Curve, read_curve

CROSS_VALIDATION, PREDICTIONS = "cross-validation", "predictions"
_COLLECTED, _ENSEMBLE = "crossval_results_folds_", "ensemble___"


@dataclass(frozen=True)
class Case:
    """A predicted case: its files, and the fold that had not seen it, where there is one."""

    name: str
    prediction: Path
    reference: Path
    images: tuple[Path, ...]  # of all channels; empty where they were not found
    fold: str | None = None


@dataclass(frozen=True)
class Result:
    """One folder's predictions and what led to them."""

    title: str
    folder: Path
    kind: str  # CROSS_VALIDATION or PREDICTIONS
    dataset_json: Mapping[str, Any]
    plans: Mapping[str, Any]  # empty where there is no plans.json
    model: Path | None  # the folder of the trained model, where it is known
    cases: tuple[Case, ...]
    curves: tuple[Curve, ...] = ()
    warnings: tuple[str, ...] = field(default=())  # what is missing but was accepted

    @property
    def dataset(self) -> str:
        """Name of the data set, such as Dataset004_Hippocampus; "" where plans do not tell."""
        return str(self.plans.get("dataset_name", ""))

    @property
    def folds(self) -> tuple[str, ...]:
        """Folds that have cases, in order."""
        return tuple(sorted({case.fold for case in self.cases if case.fold is not None}))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cases, in order."""
        return tuple(case.name for case in self.cases)


@dataclass
class _Found:
    """A folder on the way to becoming a result."""

    folder: Path
    kind: str
    dataset_json: Mapping[str, Any]
    plans: Mapping[str, Any]
    model: Path | None
    predictions: dict[str, tuple[Path, str | None]] = field(default_factory=dict)  # file and fold of each case
    warnings: list[str] = field(default_factory=list)


def read_results(
    folders: Sequence[Path], sources: Sources, names: Sequence[str] | None = None, partial: bool = False
) -> list[Result]:
    """Read all folders, in their order.

    Args:
        folders: of results, see above.
        sources: where references and images are looked for.
        names: what the results are called on the page, one for each folder; None takes them from the folders.
        partial: leave out folds and cases that are not finished and say so on the page, instead of refusing.

    Raises:
        UserError: all problems of all folders in one message.
    """
    if not folders:
        raise UserError("no folder of results: give at least one")
    if names is not None and len(names) != len(folders):
        raise UserError(f"{len(names)} names for {len(folders)} folders of results: give one name for each")
    problems: list[str] = []
    if names is not None and len(set(names)) < len(names):
        problems.append(f"names {', '.join(names)}: give different ones")
    if len({folder.resolve() for folder in folders}) < len(folders):
        problems.append("a folder of results is given twice: give each once")
    results = []
    titles = names or _titles([folder.resolve() for folder in folders])
    for folder, title in zip(folders, titles, strict=True):
        own: list[str] = []
        result = _read_result(folder, title, sources, partial, own)
        problems += own
        if result is not None:
            results.append(result)
    if problems:
        raise UserError("\n  ".join(["these results cannot be reported:", *problems]))
    return results


def _read_result(folder: Path, title: str, sources: Sources, partial: bool, problems: list[str]) -> Result | None:
    found = _find(folder, sources, partial, problems)
    if found is None:
        return None
    cases = []
    ending = found.dataset_json.get("file_ending", ".nii.gz")
    dataset = str(found.plans.get("dataset_name", ""))
    places = sources.references_of(dataset, found.kind == CROSS_VALIDATION)
    listed = _listed_references(found, ending)
    for name, (prediction, fold) in sorted(found.predictions.items()):
        candidates = [place / f"{name}{ending}" for place in places] + [listed[name]] * (name in listed)
        reference = next((path for path in candidates if path.is_file()), None)
        if reference is None:
            problems.append(f"{prediction}: no reference, looked for {_or(candidates)}; give --references FOLDER")
            continue
        channels = len(found.dataset_json.get("channel_names", found.dataset_json.get("modality", {})))
        images = sources.images_of(dataset, name, channels, ending, reference)
        cases.append(Case(name, prediction, reference, images, fold))
    if found.kind == PREDICTIONS:
        found.warnings += _without_prediction(found, cases, ending, partial, problems)
    curves = () if found.model is None else tuple(_curves(found.model))
    return Result(
        title, folder, found.kind, found.dataset_json, found.plans, found.model, tuple(cases), curves,
        tuple(found.warnings),
    )  # fmt: skip


def _or(paths: Sequence[Path]) -> str:
    return " or ".join(map(str, paths)) if paths else "in nnUNet_raw, which is not set"


def _find(folder: Path, sources: Sources, partial: bool, problems: list[str]) -> _Found | None:
    if not folder.is_dir():
        problems.append(f"{folder}: {'is no folder' if folder.exists() else 'does not exist'}")
        return None
    if re.fullmatch(r"fold_\w+", folder.name):
        problems.append(f"{folder}: is one fold; give the folder above it, with --partial if not all folds are done")
        return None
    folds = sorted(path for path in folder.glob("fold_*") if path.is_dir())
    model = folder if folds else _model_above(folder)
    dataset_json = _json_of(folder, "dataset.json", sources.dataset_json, problems)
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
        found = _Found(folder, CROSS_VALIDATION, dataset_json, plans, model)
        _collect_folds(found, folds, ending, partial, problems)
    else:
        crossed = model is not None or any(_is_crossed(path.name) for path in (folder, folder.parent))
        found = _Found(folder, CROSS_VALIDATION if crossed else PREDICTIONS, dataset_json, plans, model)
        fold_of = {} if model is None else _folds_of_cases(model, ending)
        for path in _predictions(folder, ending):
            name = path.name.removesuffix(ending)
            found.predictions[name] = (path, fold_of.get(name))
    if not found.predictions and not problems:
        where = "no fold of it has been validated" if folds else f"no file in it ends with {ending}"
        problems.append(f"{folder}: no predictions, {where}")
    return found


def _is_crossed(name: str) -> bool:
    return name.startswith((_COLLECTED, _ENSEMBLE))


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


def _predictions(folder: Path, ending: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{ending}") if path.is_file())


def _collect_folds(found: _Found, folds: Sequence[Path], ending: str, partial: bool, problems: list[str]) -> None:
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
        files = {path.name.removesuffix(ending): path for path in _predictions(validation, ending)}
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


def _listed_references(found: _Found, ending: str) -> dict[str, Path]:
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
        for path in _predictions(fold / "validation", ending)
    }


def _without_prediction(
    found: _Found, cases: Sequence[Case], ending: str, partial: bool, problems: list[str]
) -> list[str]:
    """Cases beside the references used that have no prediction."""
    folders = sorted({case.reference.parent for case in cases})
    missing = [
        path for folder in folders for path in _predictions(folder, ending)
        if path.name.removesuffix(ending) not in found.predictions
    ]  # fmt: skip
    if not missing:
        return []
    if partial:
        return [f"{len(missing)} of {len(missing) + len(cases)} references have no prediction in {found.folder}"]
    problems += [f"{path}: no prediction of it in {found.folder}; predict it, or give --partial" for path in missing]
    return []


def _curves(model: Path) -> list[Curve]:
    found = [read_curve(fold) for fold in sorted(model.glob("fold_*"))]
    return [curve for curve in found if curve is not None]


def _titles(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder: what tells it from the others."""
    parts = [_parts(folder) for folder in folders]
    width = max(map(len, parts))
    shown = [
        place for place in range(width)
        if len({names[place] if place < len(names) else "" for names in parts}) > 1
    ] or [0]  # fmt: skip
    titles = [", ".join(names[place] for place in shown if place < len(names) and names[place]) for names in parts]
    return [title or ", ".join(names) for title, names in zip(titles, parts, strict=True)]


def _parts(folder: Path) -> list[str]:
    """The trainer, plans and configuration that a folder of nnU-Net is named after, or its name."""
    for path in (folder, *folder.parents[:2]):
        if path.name.startswith(_ENSEMBLE):
            members = path.name.removeprefix(_ENSEMBLE).split("___")[:2]
            return [
                "ensemble of " + " and ".join(member.split("__")[0] for member in members),
                *[""] * 2,
                _note(folder),
            ]
        if path.name.count("__") == 2:
            return [*path.name.split("__"), "" if path == folder else _note(folder)]
    return [folder.name, "", "", folder.parent.name]


def _note(folder: Path) -> str:
    return "postprocessed" if folder.name == "postprocessed" else ""
