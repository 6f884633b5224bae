"""Training curves from the logs of a fold.

Logs are read instead of the lists in the checkpoint, since they exist from the first epoch on and are plain text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factorizer_nnunet.nnunet.model_folder import FoldFolder

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|nan|inf)"
_LINE = re.compile(r"^\S+ \S+: (?:(Epoch) (\d+)|(train_loss|val_loss|Epoch time:) (\S+)|(Pseudo dice) \[(.*)\])")


@dataclass(frozen=True)
class Curve:
    """The training of a fold; arrays have a value per finished epoch, NaN if the log has none."""

    fold: str  # "0", "1", … or "all"
    epochs: np.ndarray
    train_loss: np.ndarray
    val_loss: np.ndarray
    pseudo_dice: np.ndarray  # mean over regions, on random validation patches
    seconds: np.ndarray

    @property
    def hours(self) -> float:
        """Total time of all logged epochs."""
        return float(np.nansum(self.seconds)) / 3600


def training_logs(fold: FoldFolder) -> list[Path]:
    """The logs of a fold, the oldest first; their names contain year, month, day and time, not all with zeros."""
    return sorted(fold.path.glob("training_log_*.txt"), key=lambda log: [int(n) for n in re.findall(r"\d+", log.name)])


def read_curve(fold: FoldFolder) -> Curve | None:
    """The training curve from nnU-Net's logs of a fold; None without a finished epoch.

    A training that was continued has several logs; the later one is used for epochs in both.
    """
    rows: dict[int, dict[str, float]] = {}
    for log in training_logs(fold):
        _read_log(log.read_text(encoding="utf-8", errors="replace"), rows)
    finished = sorted(epoch for epoch, row in rows.items() if "train_loss" in row)
    if not finished:
        return None

    def column(name: str) -> np.ndarray:
        return np.array([rows[epoch].get(name, np.nan) for epoch in finished])

    return Curve(
        fold=fold.name,
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
            # NumPy prints numbers as np.float32(0.5), where 32 is not one of the values.
            values = [
                float(text) for text in re.findall(rf"(?<![\w.])({_NUMBER})", re.sub(r"np\.float\d+", "", listed))
            ]
            known = [value for value in values if not np.isnan(value)]
            row[dice] = float(np.mean(known)) if known else np.nan
        elif re.fullmatch(_NUMBER, value):
            row[name.rstrip(":")] = float(value)
