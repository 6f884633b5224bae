"""The cases of a folder of results, with the fold of each, and the model that predicted them.

The folder is one of nnU-Net's: a model (``TRAINER__PLANS__CONFIGURATION`` with ``fold_X/validation``), its collected
cross-validation (``crossval_results_folds_…``), an ensemble (``ensemble___…``), or the output of nnUNetv2_predict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.evaluation.dataset_files import check_agreement, of_references
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.training_log import Curve, read_curve
from factorizer_nnunet.report.folders import (
    CROSS_VALIDATION,
    PREDICTIONS,
    FoundPredictions,
    cases_in,
    find_predictions,
    listed_references,
)
from factorizer_nnunet.report.sources import Sources
from factorizer_nnunet.report.titles import titles_for


@dataclass(frozen=True)
class ResultCase:
    """A predicted case: its files, and the fold that was not trained on it, if known."""

    name: str
    prediction: Path
    reference: Path
    images: tuple[Path, ...]  # of all channels; empty if they were not found
    fold: str | None = None


@dataclass(frozen=True, kw_only=True)
class Result(FoundPredictions):
    """The predictions of a folder with their references, and the model that made them."""

    title: str
    cases: tuple[ResultCase, ...]
    curves: tuple[Curve, ...]

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
    """Read all folders, in the given order.

    Args:
        folders: of results, see above.
        sources: where to look for references and images.
        names: of the results on the page, one for each folder; None derives them from the folders.
        partial: leave out folds and cases that are not finished, with a warning on the page instead of an error.

    Raises:
        UserError: all problems of all folders in one message.
    """
    if not folders:
        raise UserError("no folder of results: give at least one")
    if names is not None and len(names) != len(folders):
        raise UserError(
            f"{count_of(len(names), 'name')} for {count_of(len(folders), 'folder')} of results: give one name for each"
        )
    problems = list(sources.problems())
    if names is not None and len(set(names)) < len(names):
        problems.append(f"names {', '.join(names)}: give different names")
    if len({folder.resolve() for folder in folders}) < len(folders):
        problems.append("a folder of results is given twice: give each folder once")
    results = []
    titles = names or titles_for([folder.resolve() for folder in folders])
    for folder, title in zip(folders, titles, strict=True):
        own: list[str] = []
        try:
            result = _read_result(folder, title, sources, partial, own)
        except UserError as error:  # a dataset.json with invalid entries
            own.append(str(error))
            result = None
        problems += own
        if result is not None:
            results.append(result)
    if problems:
        raise UserError("\n  ".join(["these results cannot be used:", *problems]))
    return results


def _read_result(folder: Path, title: str, sources: Sources, partial: bool, problems: list[str]) -> Result | None:
    found = find_predictions(folder, sources.dataset_json, partial, problems)
    if found is None:
        return None
    cases = _find_files(found, sources, problems)
    if sources.dataset_json is None:
        problems += _contradictions(found.dataset, cases)
    lacking = [] if sources.images is None else [case.name for case in cases if not case.images]
    if lacking:
        found.warnings.append(
            f"{len(lacking)} of {len(cases)} cases do not have all images in {sources.images} "
            f"({first_few(lacking, 3)}); their pictures show outlines only"
        )
    found.warnings.extend(references_elsewhere(cases))
    if found.kind == PREDICTIONS:
        found.warnings.extend(_without_prediction(found, cases, sources, partial, problems))
    curves = [] if found.model is None else [read_curve(fold) for fold in found.model.folds()]
    known = tuple(curve for curve in curves if curve is not None)
    return Result(**vars(found), title=title, cases=tuple(cases), curves=known)


def references_elsewhere(cases: Sequence[ResultCase]) -> list[str]:
    """A warning if some references lie in another folder than most: they may have been removed from that."""
    by_folder: dict[Path, list[str]] = {}
    for case in cases:
        by_folder.setdefault(case.reference.parent, []).append(case.name)
    if len(by_folder) < 2:
        return []
    usual, *others = sorted(by_folder, key=lambda folder: -len(by_folder[folder]))
    parts = [f"{first_few(by_folder[folder], 3)} in {folder}" for folder in others]
    return [f"most references are in {usual}, but {'; '.join(parts)}"]


def _contradictions(dataset: DatasetJson, cases: Sequence[ResultCase]) -> Iterator[str]:
    """Where the references' dataset.json gives labels other values than that of the predictions."""
    for folder in sorted({case.reference.parent for case in cases}):
        try:
            theirs = of_references(folder)
            if theirs is not None:
                check_agreement(dataset, theirs)
        except UserError as error:
            yield str(error)


def _find_files(found: FoundPredictions, sources: Sources, problems: list[str]) -> list[ResultCase]:
    """Add the reference and the images of each prediction."""
    ending = found.dataset.file_ending
    folders = sources.references_of(found.dataset_name, found.kind == CROSS_VALIDATION)
    listed = listed_references(found)
    unknown = "nnUNet_raw is not set" if found.dataset_name else "the data set of these predictions is not known"
    cases = []
    for name, (prediction, fold) in sorted(found.predictions.items()):
        candidates = [folder / f"{name}{ending}" for folder in folders]
        candidates += [listed[name]] if name in listed and sources.references is None else []
        reference = next((path for path in candidates if path.is_file()), None)
        if reference is None:
            tried = f"looked for {' or '.join(map(str, candidates))}" if candidates else unknown
            problems.append(f"{prediction}: no reference, {tried}; give --references FOLDER")
            continue
        if reference.samefile(prediction):  # which would get perfect scores
            problems.append(f"{prediction}: is also its own reference; give predictions, or other --references")
            continue
        images = sources.images_of(found.dataset_name, name, len(found.dataset.channel_names), ending, reference)
        cases.append(ResultCase(name, prediction, reference, images, fold))
    return cases


def _without_prediction(
    found: FoundPredictions, cases: Sequence[ResultCase], sources: Sources, partial: bool, problems: list[str]
) -> list[str]:
    """Report references of test cases without a prediction; training cases need not be predicted."""
    used = {case.reference.parent for case in cases}
    missing = [
        path
        for folder in sorted(path for path in used if path == sources.references or path.name == "labelsTs")
        for name, path in cases_in(folder, found.dataset.file_ending).items()
        if name not in found.predictions
    ]
    if missing and partial:
        return [f"{len(missing)} of {len(missing) + len(cases)} references have no prediction in {found.folder}"]
    problems += [f"{path}: has no prediction in {found.folder}; predict it, or give --partial" for path in missing]
    return []
