"""What nnU-Net left in the folder of a trained fold: curves from its logs, weights from its checkpoint.

Logs are read rather than the lists in the checkpoint, since they are there from the first epoch on, and are text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# The last one that is there is what nnUNetv2_predict uses unless told otherwise.
_CHECKPOINTS = ("checkpoint_best.pth", "checkpoint_latest.pth", "checkpoint_final.pth")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|nan|inf)"
_LINE = re.compile(r"^\S+ \S+: (?:(Epoch) (\d+)|(train_loss|val_loss|Epoch time:) (\S+)|(Pseudo dice) \[(.*)\])")


@dataclass(frozen=True)
class Curve:
    """One fold's training; arrays have a value per finished epoch, NaN where the log has none."""

    fold: str  # "0", "1", … or "all"
    epochs: np.ndarray
    train_loss: np.ndarray
    val_loss: np.ndarray
    pseudo_dice: np.ndarray  # mean over regions, of random validation patches
    seconds: np.ndarray

    @property
    def hours(self) -> float:
        """Time of all logged epochs together."""
        return float(np.nansum(self.seconds)) / 3600


def read_curve(folder: Path) -> Curve | None:
    """The training curve in nnU-Net's logs of a ``fold_X`` folder; None without a finished epoch.

    A continued training has several logs; where they tell of the same epoch, the later one counts.
    """
    rows: dict[int, dict[str, float]] = {}
    for log in sorted(folder.glob("training_log_*.txt")):
        _read_log(log.read_text(encoding="utf-8", errors="replace"), rows)
    finished = sorted(epoch for epoch, row in rows.items() if "train_loss" in row)
    if not finished:
        return None

    def column(name: str) -> np.ndarray:
        return np.array([rows[epoch].get(name, np.nan) for epoch in finished])

    return Curve(
        fold=folder.name.removeprefix("fold_"),
        epochs=np.array(finished),
        train_loss=column("train_loss"),
        val_loss=column("val_loss"),
        pseudo_dice=column("Pseudo dice"),
        seconds=column("Epoch time"),
    )


def _read_log(text: str, rows: dict[int, dict[str, float]]) -> None:
    row: dict[str, float] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        _, epoch, name, value, dice, listed = match.groups()
        if epoch:
            row = rows[int(epoch)] = {}
        elif dice:
            # Read off NumPy's own words for its numbers, such as np.float32(0.5), where 32 is none of them.
            values = [
                float(text) for text in re.findall(rf"(?<![\w.])({_NUMBER})", re.sub(r"np\.float\d+", "", listed))
            ]
            known = [value for value in values if not np.isnan(value)]
            row[dice] = float(np.mean(known)) if known else np.nan
        elif re.fullmatch(_NUMBER, value):
            row[name.rstrip(":")] = float(value)


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of a ``fold_X`` folder that predictions are made with: the final one, else the latest there is."""
    return next((folder / name for name in reversed(_CHECKPOINTS) if (folder / name).is_file()), None)


def count_weights(checkpoint: Path) -> int | None:
    """Number of a checkpoint's weights, those kept under two names once; None where it cannot be read without code.

    Nothing in the file is run, and its weights are not copied to memory.
    """
    import torch  # takes seconds, and only checkpoints need it
    from torch.serialization import safe_globals

    # nnU-Net keeps logged values beside the weights as NumPy numbers.
    scalar = getattr(np, "_core", getattr(np, "core", None)).multiarray.scalar
    allowed = [scalar, np.dtype, type(np.dtype("float32")), type(np.dtype("float64")), type(np.dtype("int64"))]
    try:
        with safe_globals(allowed):
            content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        weights: Mapping[str, torch.Tensor] = content["network_weights"]
        return sum({tensor.data_ptr(): tensor.numel() for tensor in weights.values()}.values())
    except Exception:  # whatever is wrong with it, the report can do without
        return None
