"""nnU-Net's file of folds, ``splits_final.json``: a list with the training and validation cases of every fold."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json

NUMBER_OF_FOLDS = 5  # that nnU-Net makes
Fold = dict[str, list[str]]  # names of cases under "train" and "val"
FIX = "Correct the file, or move it away: nnU-Net's folds of all cases, which are always the same, are then made"


def read_folds(file: Path) -> list[Fold]:
    """The folds in a file; empty if it does not exist.

    Raises:
        UserError: the file cannot be read, or does not contain a list of folds.
    """
    if not os.path.lexists(file):  # a link to nothing is reported, not replaced
        return []
    folds = load_json(file, FIX)
    if not isinstance(folds, list):
        raise UserError(f"{file} contains {type(folds).__name__} instead of a list of folds. {FIX}")
    wrong = next((number for number, fold in enumerate(folds) if not _is_fold(fold)), None)
    if wrong is not None:
        raise UserError(f'{file}: fold {wrong} is not {{"train": [CASE, …], "val": [CASE, …]}}. {FIX}')
    return folds


def _is_fold(fold: object) -> bool:
    parts = [fold.get(part) for part in ("train", "val")] if isinstance(fold, dict) else [None]
    return all(isinstance(part, list) and all(isinstance(case, str) for case in part) for part in parts)


def default_folds(cases: Iterable[str]) -> list[Fold]:
    """The five folds that nnU-Net makes of these cases."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split  # scikit-learn takes seconds to import

    folds: list[Fold] = generate_crossval_split(sorted(cases), seed=12345, n_splits=NUMBER_OF_FOLDS)
    return folds


def folds_in_use(file: Path, cases: Collection[str]) -> list[Fold]:
    """The folds in a file, or those that nnU-Net makes of ``cases`` if it does not exist.

    Raises:
        UserError: the file exists, but is not valid; or there are too few cases.
    """
    if folds := read_folds(file):
        return folds
    if len(cases) < NUMBER_OF_FOLDS:
        raise UserError(
            f"{len(cases)} training cases are too few for {NUMBER_OF_FOLDS} folds. Train on all of them instead: "
            "nnUNetv2_train … all"
        )
    return default_folds(cases)


def ensure_folds(file: Path, cases: Collection[str]) -> None:
    """Write nnU-Net's five folds of ``cases`` to ``file`` unless it exists; raises as ``folds_in_use`` does.

    nnU-Net itself writes the file in place, at the first training of a data set, which may be killed.
    """
    if not read_folds(file):
        write_text_atomically(file, json.dumps(folds_in_use(file, cases), indent=4))
