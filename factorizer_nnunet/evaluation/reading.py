"""Label files in two folders: which belong together, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.imaging.grid import Grid, geometry_difference
from factorizer_nnunet.imaging.volume import count_labels, count_not_finite, integer_labels, read_volume

NIFTI = (".nii.gz", ".nii")
OTHERS = (".mha", ".mhd", ".nrrd")  # with spacing in the file, too
ENDINGS = (*NIFTI, *OTHERS)


@dataclass(frozen=True)
class LabelImage:
    """A label file: integers (x, y, z) and where their voxels lie."""

    labels: np.ndarray
    grid: Grid


@dataclass(frozen=True)
class Pair:
    """The two files of a case."""

    case: str
    reference: Path
    prediction: Path


def pairs_in(predictions: Path, references: Path, only_common: bool) -> tuple[list[Pair], tuple[str, ...]]:
    """The cases of two folders, by file name without ending, and the names of those that only one of them has.

    Raises:
        UserError: a folder has no label file or a case twice, no case is in both, or, unless `only_common`, a case
            is in one of them alone; or both are one folder, which would score perfectly.
    """
    if predictions.is_dir() and references.is_dir() and predictions.samefile(references):
        raise UserError(f"{predictions} is given both as predictions and as references: name two folders")
    found = _label_files(predictions), _label_files(references)
    both = sorted(found[0].keys() & found[1].keys())
    alone = tuple(sorted(found[0].keys() ^ found[1].keys()))
    problems = [f"{found[1][c]}: no prediction in {predictions}" for c in sorted(found[1].keys() - found[0].keys())]
    problems += [f"{found[0][c]}: no reference in {references}" for c in sorted(found[0].keys() - found[1].keys())]
    if not both:
        raise UserError(
            f"{predictions} and {references} have no case in common; files of a case have the same name in both "
            f"(predictions: {first_few(sorted(found[0]), 2)}; references: {first_few(sorted(found[1]), 2)})"
        )
    if problems and not only_common:
        lines = "\n".join(f"  {text}" for text in problems)
        raise UserError(
            f"{count_of(len(problems), 'case')} in one folder only, nothing was scored; add or remove files, or score "
            f"what both have, {count_of(len(both), 'case')}, with --only-common:\n{lines}"
        )
    return [Pair(case, found[1][case], found[0][case]) for case in both], alone


def read_labels(path: Path) -> LabelImage:
    """Read a label file.

    Raises:
        OSError: it cannot be read, or is no 3D image of integers.
    """
    if path.name.endswith(NIFTI):
        volume = read_volume(path)
        if volume.series is not None:
            raise OSError(f"holds {volume.series} images, not one of labels")
        values, grid = volume.values, volume.grid
    else:
        values, grid = _read_with_sitk(path)
    if count_not_finite(values):
        raise OSError("holds NaN or infinity")
    try:
        return LabelImage(integer_labels(values), grid)
    except ValueError as error:
        raise OSError(str(error)) from error


def problems_of(pair: Pair, declared: frozenset[int] | None, ignore: int | None) -> list[str]:
    """What keeps a case from being scored, in words that begin with the file."""
    problems, grids = [], []
    for path, allowed in ((pair.reference, declared), (pair.prediction, _without(declared, ignore))):
        try:
            image = read_labels(path)
        except OSError as error:
            problems.append(f"{path}: {error}")
            continue
        grids.append(image.grid)
        counts: Mapping[int, int] = count_labels(image.labels)
        unexpected = {v: n for v, n in counts.items() if v < 0 or (allowed is not None and v not in allowed)}
        if unexpected:
            values = ", ".join(f"{value} ({count} voxels)" for value, count in list(unexpected.items())[:5])
            meant = "labels are not negative" if allowed is None else f"declared are {sorted(allowed)}"
            problems.append(f"{path}: label values {values}; {meant}")
    if len(grids) == 2:
        difference = geometry_difference(grids[1], grids[0])
        if difference is not None:
            problems.append(f"{pair.prediction}: {difference} of {pair.reference}")
    return problems


def labels_in(pair: Pair) -> frozenset[int]:
    """Label values of the files of a case that can be read."""
    values: set[int] = set()
    for path in (pair.reference, pair.prediction):
        try:
            values |= count_labels(read_labels(path).labels).keys()
        except OSError:  # told by `problems_of`
            continue
    return frozenset(values)


def _without(declared: frozenset[int] | None, ignore: int | None) -> frozenset[int] | None:
    return None if declared is None else declared - {ignore}


def _label_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give one with label files")
    for path in sorted(folder.iterdir()):
        ending = next((e for e in ENDINGS if path.name.endswith(e)), None)
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        case = path.name.removesuffix(ending)
        if case in files:
            raise UserError(f"{folder} has the case {case} twice, as {files[case].name} and {path.name}: remove one")
        files[case] = path
    if not files:
        raise UserError(f"{folder} holds no label file (*{', *'.join(ENDINGS)})")
    return files


def _read_with_sitk(path: Path) -> tuple[np.ndarray, Grid]:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise OSError(f"cannot be read: {str(error).strip().splitlines()[-1]}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise OSError("is not one 3D image")
    grid = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return sitk.GetArrayFromImage(image).T, grid
