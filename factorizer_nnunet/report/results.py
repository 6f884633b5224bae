"""What a folder of results holds: which cases, of which fold, and what was trained to get them.

A folder is one of nnU-Net's: a model (``TRAINER__PLANS__CONFIGURATION`` with ``fold_X/validation``), its collected
cross-validation (``crossval_results_folds_…``), an ensemble (``ensemble___…``), or the output of nnUNetv2_predict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.report.folders import (
    CROSS_VALIDATION,
    PREDICTIONS,
    Found,
    files_in,
    find_predictions,
    listed_references,
)
from factorizer_nnunet.report.sources import Sources
from factorizer_nnunet.report.titles import titles_for
from factorizer_nnunet.report.training import Curve, read_curve


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
    titles = names or titles_for([folder.resolve() for folder in folders])
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
    found = find_predictions(folder, sources.dataset_json, partial, problems)
    if found is None:
        return None
    cases = []
    ending = found.dataset_json.get("file_ending", ".nii.gz")
    dataset = str(found.plans.get("dataset_name", ""))
    places = sources.references_of(dataset, found.kind == CROSS_VALIDATION)
    listed = listed_references(found, ending)
    for name, (prediction, fold) in sorted(found.predictions.items()):
        candidates = [place / f"{name}{ending}" for place in places]
        candidates += [listed[name]] if name in listed else []
        reference = next((path for path in candidates if path.is_file()), None)
        if reference is None:
            problems.append(f"{prediction}: no reference, looked for {_or(candidates)}; give --references FOLDER")
            continue
        if reference.samefile(prediction):  # which would score perfectly
            problems.append(f"{prediction}: would be its own reference; give predictions, or other --references")
            continue
        channels = len(found.dataset_json.get("channel_names", found.dataset_json.get("modality", {})))
        images = sources.images_of(dataset, name, channels, ending, reference)
        cases.append(Case(name, prediction, reference, images, fold))
    if found.kind == PREDICTIONS:
        found.warnings += _without_prediction(found, cases, sources, partial, problems)
    curves = () if found.model is None else tuple(_curves(found.model))
    return Result(
        title, folder, found.kind, found.dataset_json, found.plans, found.model, tuple(cases), curves,
        tuple(found.warnings),
    )  # fmt: skip


def _or(paths: Sequence[Path]) -> str:
    return " or ".join(map(str, paths)) if paths else "in nnUNet_raw, which is not set"


def _without_prediction(
    found: Found, cases: Sequence[Case], sources: Sources, partial: bool, problems: list[str]
) -> list[str]:
    """Cases beside the references used that have no prediction; labels for training are more than was asked for."""
    ending = found.dataset_json.get("file_ending", ".nii.gz")
    used = {case.reference.parent for case in cases}
    folders = sorted(path for path in used if path == sources.references or path.name == "labelsTs")
    missing = [
        path for folder in folders for path in files_in(folder, ending)
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
