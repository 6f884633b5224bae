"""Logs as nnU-Net writes them."""

from __future__ import annotations

import math


def training_log(epochs: int, offset: float, first: int = 0) -> str:
    """A log in the format of nnU-Net."""
    lines = ["", "#######################################################################", ""]
    for epoch in range(first, first + epochs):
        gain = 1 - math.exp(-epoch / 4)
        dice = f"[np.float32({0.8 * gain - offset / 10:.4f}), np.float32({0.7 * gain - offset / 10:.4f})]"
        stamp = f"2026-01-01 00:{epoch % 60:02d}:00.000000:"
        lines += [
            f"{stamp} ",
            f"{stamp} Epoch {epoch} ",
            f"{stamp} Current learning rate: 0.01 ",
            f"{stamp} train_loss {-0.8 * gain + offset:.4f} ",
            f"{stamp} val_loss {-0.7 * gain + offset:.4f} ",
            f"{stamp} Pseudo dice {dice} ",
            f"{stamp} Epoch time: 30.5 s ",
        ]
    return "\n".join(lines) + "\n"
