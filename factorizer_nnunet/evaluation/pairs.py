"""Pairs of label files to score: listed from two folders, and checked before anything is scored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.evaluation.reading import ENDINGS, ending_of, read_labels
from factorizer_nnunet.imaging.checks import grid_problem
from factorizer_nnunet.imaging.labels import count_labels


@dataclass(frozen=True)
class CasePair:
    """The two files of a case."""

    case: str
    prediction: Path
    reference: Path


def pairs_in_folders(predictions: Path, references: Path) -> tuple[list[CasePair], dict[str, str]]:
    """Pair the label files of two folders by name; for each case that only one of the folders has, say what is missing.

    Raises:
        UserError: a folder has no label file, or two of one case; no case is in both; or both are the same folder,
            which would get perfect scores.
    """
    if predictions.is_dir() and references.is_dir() and predictions.samefile(references):
        raise UserError(f"predictions and references are the same folder, {predictions}: give two folders")
    predicted, reference_files = _label_files(predictions), _label_files(references)
    both = sorted(predicted.keys() & reference_files.keys())
    if not both:
        raise UserError(
            f"{predictions} and {references} have no case in common; a case needs the same file name in both folders "
            f"(predictions: {first_few(sorted(predicted), 2)}; references: {first_few(sorted(reference_files), 2)})"
        )
    missing = {
        case: f"{files[case]}: {_missing(what, other / files[case].name)}"
        for files, others, what, other in (
            (reference_files, predicted, "prediction", predictions),
            (predicted, reference_files, "reference", references),
        )
        for case in sorted(files.keys() - others.keys())
    }
    return [CasePair(case, predicted[case], reference_files[case]) for case in both], missing


def problems_of(
    pair: CasePair, declared: frozenset[int] | None, ignore: int | None, ignore_geometry: bool = False
) -> list[str]:
    """Everything that prevents a case from being scored; each text begins with the file.

    Args:
        pair: the files to check.
        declared: label values that may occur; None allows all that are not negative.
        ignore: label that only the reference may contain.
        ignore_geometry: only the number of voxels must be the same, not where they lie.
    """
    problems, grids, shapes = [], [], []
    for path, allowed in (
        (pair.reference, declared),
        (pair.prediction, None if declared is None else declared - {ignore}),
    ):
        try:
            image = read_labels(path)
        except OSError as error:
            problems.append(f"{path}: {error}. Correct or replace the file")
            continue
        grids.append(image.grid)
        shapes.append(image.labels.shape)
        counts = count_labels(image.labels)
        unexpected = {v: n for v, n in counts.items() if v < 0 or (allowed is not None and v not in allowed)}
        if unexpected:
            values = ", ".join(f"{value} ({count_of(count, 'voxel')})" for value, count in list(unexpected.items())[:5])
            expected = "non-negative values" if allowed is None else str(sorted(allowed))
            if ignore in unexpected:
                expected += f", since {ignore} is the ignore label, which only references may contain"
            problems.append(
                f"{path}: unexpected label values {values}; expected {expected}. Correct the label, or name them in "
                "the dataset.json of --dataset-json"
            )
    if len(grids) == 2 and shapes[0] != shapes[1]:
        problems.append(
            f"{pair.prediction}: shape {shapes[1]} differs from {shapes[0]} of {pair.reference}. Resample it to the "
            "reference's grid with the nearest neighbour"
        )
    elif len(grids) == 2:
        difference = grid_problem(grids[1], grids[0], str(pair.reference), ignore_geometry)
        if difference is not None:
            problems.append(f"{pair.prediction}: {difference}")
    return problems


def labels_in(pair: CasePair) -> frozenset[int]:
    """Label values of both files; those of unreadable files, which `problems_of` reports, are missing."""
    values: set[int] = set()
    for path in (pair.reference, pair.prediction):
        try:
            values |= count_labels(read_labels(path).labels).keys()
        except OSError:
            continue
    return frozenset(values)


def _missing(what: str, expected: Path) -> str:
    """Why a file has no counterpart."""
    if os.path.lexists(expected):
        return f"the {what} {expected} is a dangling link, or not a file"
    return f"no {what} in {expected.parent}"


def _label_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give one with label files")
    for path in sorted(folder.iterdir()):
        ending = ending_of(path.name)
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        case = path.name.removesuffix(ending)
        if case in files:
            raise UserError(f"{folder} has two files of {case}, {files[case].name} and {path.name}: remove one")
        files[case] = path
    if not files:
        raise UserError(f"{folder} contains no label file (*{', *'.join(ENDINGS)})")
    return files
