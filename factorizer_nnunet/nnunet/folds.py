"""nnU-Net's file of folds, ``splits_final.json``: a list with the training and validation cases of every fold."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json

NUMBER_OF_FOLDS = 5  # that nnU-Net makes
Fold = dict[str, list[str]]  # names of cases under "train" and "val"


def read_folds(file: Path) -> list[Fold]:
    """The folds in a file; empty if it does not exist, or was cut off by a kill.

    Raises:
        UserError: the file is damaged in another way.
    """
    folds: list[Fold] = read_complete_json(file, list) or []
    return folds


def default_folds(cases: Iterable[str]) -> list[Fold]:
    """The five folds that nnU-Net makes of these cases."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split  # scikit-learn takes seconds to import

    folds: list[Fold] = generate_crossval_split(sorted(cases), seed=12345, n_splits=NUMBER_OF_FOLDS)
    return folds


def ensure_folds(file: Path, cases: Iterable[str]) -> None:
    """Write nnU-Net's five folds of ``cases`` to ``file`` unless it exists.

    nnU-Net itself writes the file in place, at the first training of a data set, which may be killed.

    Raises:
        UserError: the file exists, but is incomplete.
    """
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_text_atomically(file, json.dumps(default_folds(cases), indent=4))
    except ValueError as error:
        raise UserError(
            f"{file} is not valid JSON ({error}), probably cut off by a kill. Remove it: nnU-Net's folds are always "
            "the same and will be written again; restore folds of your own"
        ) from error
