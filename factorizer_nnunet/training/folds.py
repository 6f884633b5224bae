"""nnU-Net's file of folds, written whole: the first training of a data set makes it, and any may be killed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from nnunetv2.utilities.crossval_split import generate_crossval_split

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError


def ensure_splits(file: Path, cases: Iterable[str]) -> None:
    """Write nnU-Net's own five folds of ``cases`` to ``file`` unless it is there.

    Raises:
        UserError: the file is there, but only in part.
    """
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        folds = generate_crossval_split(sorted(cases), seed=12345, n_splits=5)  # as nnU-Net's trainer calls it
        write_text_atomically(file, json.dumps(folds, indent=4))
    except ValueError as error:
        raise UserError(
            f"{file} is not valid JSON ({error}), as a kill leaves it. Remove it: nnU-Net's folds are always the same "
            "and will be written again; restore folds of your own"
        ) from error
