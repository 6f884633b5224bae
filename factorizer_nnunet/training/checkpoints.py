"""Checkpoint files: written atomically and more often than nnU-Net does."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from factorizer_nnunet.core.errors import UserError

MINUTES_VARIABLE = "FACTORIZER_CHECKPOINT_MINUTES"
DEFAULT_MINUTES = 10.0
_DRAFT = ".draft"


def minutes_between_checkpoints(environment: Mapping[str, str] = os.environ) -> float:
    """Minutes between two checkpoints; infinity if ``FACTORIZER_CHECKPOINT_MINUTES`` is 0.

    Raises:
        UserError: the variable is not a number, or negative.
    """
    value = environment.get(MINUTES_VARIABLE, "").strip()
    try:
        minutes = float(value) if value else DEFAULT_MINUTES
    except ValueError:
        minutes = math.nan
    if not minutes >= 0:
        raise UserError(
            f"{MINUTES_VARIABLE} is {value!r}; set it to minutes, such as 10, or to 0 for nnU-Net's interval"
        )
    return minutes or math.inf


class Clock:
    """Says when the next checkpoint is due: ``minutes`` after the last reset."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.reset()

    def reset(self) -> None:
        self._start = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._start >= 60 * self.minutes


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Save next to ``path``, then rename: neither a kill nor a failing node destroys the previous checkpoint.

    Raises:
        UserError: it cannot be written; the previous checkpoint is kept.
    """
    draft = path.with_name(path.name + _DRAFT)
    try:
        torch.save(content, str(draft))
        with draft.open("rb+") as stream:
            os.fsync(stream.fileno())  # otherwise a failing machine may leave an empty file under the new name
        draft.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as either
        with contextlib.suppress(OSError):
            draft.unlink()
        raise UserError(
            f"cannot write {path} ({error}); the previous checkpoint is kept. Free space or fix the folder's "
            "permissions, then continue with --c"
        ) from error


def remove_drafts(folder: Path) -> None:
    """Remove incomplete files that a kill left."""
    for draft in folder.glob(f"checkpoint_*{_DRAFT}"):
        draft.unlink(missing_ok=True)


def completed_epochs(logging: Mapping[str, list], epochs: int) -> dict[str, list]:
    """nnU-Net's log without entries of an incomplete epoch: its logger takes one value per epoch and key."""
    return {key: values[:epochs] for key, values in logging.items()}
