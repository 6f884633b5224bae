"""Mean Dice against training time, on fold 0, for each setup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogFormatter

from benchmarks.real_data.arms import ARMS
from benchmarks.real_data.pieces import ITERATIONS, LONG, SHORT, TIME, Piece
from benchmarks.real_data.summary import Comparison

_COLUMNS = 2


def points(content: Mapping[str, Any], setup: str, arm: str) -> list[tuple[float, float]]:
    """CPU minutes of the training steps and mean Dice of each training of an arm on fold 0, shortest first."""
    data, _, configuration = setup.partition("/")

    def found() -> Iterator[tuple[float, float]]:
        for budget in (SHORT, LONG):
            for equal in (ITERATIONS, TIME):
                piece = Piece(data=data, configuration=configuration, budget=budget, arm=arm, equal=equal)
                if result := content["pieces"].get(piece.key):
                    own = Comparison({arm: {0: result}}, (0,), content["setups"][setup]["patient"])
                    yield result["seconds"] / 60, own.mean(arm)

    return sorted(found())


def draw(content: Mapping[str, Any], file: Path) -> None:
    """Draw a panel for each setup."""
    setups = list(content["setups"]) or ["no results"]
    rows = -(-len(setups) // _COLUMNS)
    figure, axes = plt.subplots(
        rows, min(len(setups), _COLUMNS), figsize=(10, 4 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(setups) :]:
        axis.axis("off")
    for setup, axis in zip(setups, axes.flat, strict=False):
        for number, (name, arm) in enumerate(ARMS.items()):
            if found := points(content, setup, name) if setup in content["setups"] else []:
                minutes, dice = zip(*found, strict=True)
                axis.plot(minutes, dice, "o-", color=f"C{number}", markersize=4, linewidth=1, label=arm.title)
        axis.set(title=setup, xlabel="CPU minutes of training", ylabel="mean Dice, fold 0", xscale="log")
        for ticks in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            ticks(LogFormatter(labelOnlyBase=False))  # 2 and 3 rather than powers of 10
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=7)
    figure.savefig(file, dpi=110, format="png")
    plt.close(figure)
