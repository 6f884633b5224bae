"""Which folds and how many of their cases a command takes that predicts validation cases again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, ModelFolder


def check_choice(folds: Sequence[str] | None, max_cases: int | None) -> None:
    """Check what was asked for.

    Raises:
        UserError: a fold is not a number or is named twice, or less than one case of each is asked for.
    """
    if max_cases is not None and max_cases < 1:
        raise UserError(f"--cases {max_cases} must be at least 1")
    if len(set(folds or ())) < len(folds or ()):
        raise UserError(f"-f {' '.join(folds or ())}: name each fold once")
    wrong = [fold for fold in folds or () if fold != ALL_CASES and not fold.isdecimal()]
    if wrong:
        raise UserError(f"-f {wrong[0]}: a fold is a number")


def default_folds(model: Path, checkpoint: str | None = None) -> tuple[str, ...]:
    """All folds of a model folder except ``all``; fold 0 if there are none, which ``load_model`` then reports.

    Args:
        model: the folder.
        checkpoint: file that a fold must have; None: none.
    """
    return tuple(fold.name for fold in ModelFolder(model).numbered_folds(checkpoint)) or ("0",)
