"""Checkpoints on disk: written whole, more often than nnU-Net does, and exact within an epoch, too."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from factorizer_nnunet.core.errors import UserError

LATEST = "checkpoint_latest.pth"  # the names are nnU-Net's; --c takes the first that exists of final, latest, best
RESUMABLE = ("checkpoint_final.pth", LATEST, "checkpoint_best.pth")
MINUTES_VARIABLE = "FACTORIZER_CHECKPOINT_MINUTES"
DEFAULT_MINUTES = 10.0
_DRAFT = ".draft"


def minutes_between_checkpoints(environment: Mapping[str, str] = os.environ) -> float:
    """After how many minutes a training saves; infinity where ``FACTORIZER_CHECKPOINT_MINUTES`` is 0.

    Raises:
        UserError: the variable is no number, or below 0.
    """
    value = environment.get(MINUTES_VARIABLE, "").strip()
    try:
        minutes = float(value) if value else DEFAULT_MINUTES
    except ValueError:
        minutes = math.nan
    if not minutes >= 0:
        raise UserError(f"{MINUTES_VARIABLE} is {value!r}; set it to minutes, such as 10, or to 0 for nnU-Net's epochs")
    return minutes or math.inf


class Clock:
    """Says when the next checkpoint is due; ``minutes`` after it was last reset."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.reset()

    def reset(self) -> None:
        self._start = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._start >= 60 * self.minutes


def save_whole(content: dict[str, Any], path: Path) -> None:
    """Save beside ``path``, then rename: neither a kill nor a failing node costs the checkpoint before.

    Raises:
        UserError: it cannot be written; the checkpoint before is kept.
    """
    draft = path.with_name(path.name + _DRAFT)
    try:
        torch.save(content, str(draft))
        with draft.open("rb+") as stream:
            os.fsync(stream.fileno())  # else a machine that fails may keep the new name with nothing in it
        draft.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as either
        with contextlib.suppress(OSError):
            draft.unlink()
        raise UserError(
            f"cannot write {path} ({error}); what was there before is kept. Free space or mend the folder's "
            "permissions, then go on with --c"
        ) from error


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint of the user's own training, on the CPU; nnU-Net unpickles it just the same.

    Raises:
        UserError: it is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint ({error}): truncated or damaged; move it away to continue from the "
            "fold's other checkpoint, or start again without --c"
        ) from error


def remove_drafts(folder: Path) -> None:
    """Remove what a kill left half-written."""
    for draft in folder.glob(f"checkpoint_*{_DRAFT}"):
        draft.unlink(missing_ok=True)


def last_good(folder: Path) -> Path | None:
    """The checkpoint of a fold that ``--c`` goes on from; None where it would start anew."""
    return next((folder / name for name in RESUMABLE if (folder / name).is_file()), None)


def completed_epochs(logging: Mapping[str, list], epochs: int) -> dict[str, list]:
    """nnU-Net's log without entries of an epoch that is not complete: its logger takes one value per epoch and key."""
    return {key: values[:epochs] for key, values in logging.items()}
