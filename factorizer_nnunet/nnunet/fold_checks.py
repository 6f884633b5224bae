"""Whether the folds of ``splits_final.json`` fit the dataset that they are used with."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.nnunet.conversion_report import patients_of
from factorizer_nnunet.nnunet.folds import FIX, default_folds, folds_in_use
from factorizer_nnunet.nnunet.model_folder import ALL_CASES
from factorizer_nnunet.nnunet.names import SPLITS_FILE

_PARTS = ("train", "val")


@dataclass(frozen=True)
class FoldFindings:
    """What is wrong with folds, and what may be intended; sentences without a final full stop."""

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_folds(content: Any, cases: Set[str], patients: Mapping[str, str], made_by_hand: bool) -> FoldFindings:
    """Check folds before they are used.

    Args:
        content: what the file contains, as JSON.
        cases: names of all training cases.
        patients: patient of each case, for the cases where it is known.
        made_by_hand: cases in no fold are a warning then, since they may have been left out on purpose.
    """
    if not isinstance(content, list) or not content:
        return FoldFindings(("it must be a list of folds, each with train and val",))
    shapes = tuple(problem for number, fold in enumerate(content) for problem in _shape_problems(number, fold))
    if shapes:
        return FoldFindings(shapes)
    problems = [problem for number, fold in enumerate(content) for problem in _case_problems(number, fold, cases)]
    problems += [
        problem for number, fold in enumerate(content) for problem in _patient_problems(number, fold, patients)
    ]
    warnings: list[str] = []
    used = {name for fold in content for part in _PARTS for name in fold[part]}
    if left_out := sorted(cases - used):
        text = f"{count_of(len(left_out), 'case')} in no fold, so never trained on: {first_few(left_out)}"
        (warnings if made_by_hand else problems).append(text)
    validated = Counter(name for fold in content for name in fold["val"])
    if several := sorted(name for name, number in validated.items() if number > 1):
        warnings.append(f"{count_of(len(several), 'case')} validated in more than one fold: {first_few(several)}")
    if never := sorted((cases & used) - set(validated)):
        warnings.append(f"{count_of(len(never), 'case')} validated in no fold: {first_few(never)}")
    return FoldFindings(tuple(problems), tuple(warnings))


def _shape_problems(number: int, fold: Any) -> Sequence[str]:
    if not isinstance(fold, dict) or any(part not in fold for part in _PARTS):
        return [f"fold {number} must be an object with train and val"]
    found = []
    for part in _PARTS:
        names = fold[part]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            found.append(f"{part} of fold {number} must be a list of case names")
        elif not names:
            found.append(f"{part} of fold {number} is empty")
        elif len(set(names)) < len(names):
            twice = sorted(name for name, times in Counter(names).items() if times > 1)
            found.append(f"{part} of fold {number} names cases twice: {first_few(twice)}")
    return found


def _case_problems(number: int, fold: Mapping[str, list[str]], cases: Set[str]) -> Sequence[str]:
    found = []
    if both := sorted(set(fold["train"]) & set(fold["val"])):
        found.append(f"fold {number} trains and validates on the same cases: {first_few(both)}")
    if unknown := sorted({*fold["train"], *fold["val"]} - cases):
        found.append(f"fold {number} names cases that the dataset does not have: {first_few(unknown)}")
    return found


def _patient_problems(number: int, fold: Mapping[str, list[str]], patients: Mapping[str, str]) -> Sequence[str]:
    train, val = ({patients[name] for name in fold[part] if name in patients} for part in _PARTS)
    if both := sorted(train & val):
        return [f"fold {number} trains and validates on cases of the same patients: {first_few(both)}"]
    return []


def checked_folds(file: Path, cases: Set[str], raw: Path | None) -> FoldFindings:
    """Check the folds in a file against a dataset.

    Args:
        file: ``splits_final.json``.
        cases: names of all training cases.
        raw: the dataset's folder in ``nnUNet_raw``, for the patients that conversion knows; None if there is none.

    Raises:
        UserError: the file is not valid JSON, or a fold cannot be used; nothing has been changed.
    """
    content = load_json(file, FIX)
    patients = {} if raw is None else patients_of(raw)
    given = None if raw is None or not patients else raw / SPLITS_FILE
    found = check_folds(content, cases, patients, _is_made_by_hand(content, given))
    if found.problems:
        listed = "; ".join(found.problems)
        raise UserError(f"{file}: {listed}. {FIX}")
    return found


def check_fold(fold: int | str, file: Path, cases: Set[str], raw: Path | None) -> None:
    """Check that a fold can be trained.

    Args:
        fold: its number, or ``all``, which needs no folds.
        file: ``splits_final.json``; if it does not exist, nnU-Net makes it.
        cases: names of all preprocessed cases.
        raw: the dataset's folder in ``nnUNet_raw``; None if there is none.

    Raises:
        UserError: as for ``checked_folds``; there are too few cases for folds; or nnU-Net would draw the fold at
            random, without regard to patients.
    """
    if fold == ALL_CASES:
        return
    folds = folds_in_use(file, cases)
    if os.path.lexists(file):
        checked_folds(file, cases, raw)
    patients = {} if raw is None else patients_of(raw)
    if isinstance(fold, int) and fold >= len(folds) and len(set(patients.values())) < len(patients):
        raise UserError(
            f"fold {fold} is not one of the {len(folds)} folds of {file}: nnU-Net would draw it at random, which "
            "may put cases of one patient on both sides. Add it to the file, without dividing patients, or choose "
            "another"
        )


def _is_made_by_hand(content: Any, converted: Path | None) -> bool:
    """Whether folds are neither nnU-Net's of the cases that they name nor those in the file that conversion made."""
    if converted is not None and converted.is_file():
        return bool(load_json(converted, FIX) != content)
    try:
        names = {name for fold in content for part in _PARTS for name in fold[part]}
        return bool(content != default_folds(names))
    except (KeyError, TypeError, ValueError):
        return True
