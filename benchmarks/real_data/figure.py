"""Mean Dice against training time, on fold 0, for each setup: dots for equal iterations, squares for equal time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from benchmarks.real_data.arms import ARMS, MAIN
from benchmarks.real_data.data import setup_title
from benchmarks.real_data.pieces import ITERATIONS, LONG, SHORT, TIME, Piece
from benchmarks.real_data.summary import Comparison

_COLUMNS = 2
_MARKERS = {ITERATIONS: "o", TIME: "s"}


@dataclass(frozen=True, order=True)
class Point:
    """A training.

    Attributes:
        minutes: CPU time of as many iterations as it has, by the costs measured in turns.
        dice: mean over the patients.
        equal: ITERATIONS or TIME.
    """

    minutes: float
    dice: float
    equal: str


def points(content: Mapping[str, Any], setup: str, arm: str) -> list[Point]:
    """The trainings of an arm on fold 0, shortest first."""
    data, _, configuration = setup.partition("/")
    known = content["setups"][setup]

    def found() -> Iterator[Point]:
        for budget in (SHORT, LONG):
            for equal in (ITERATIONS, TIME):
                piece = Piece(data=data, configuration=configuration, budget=budget, arm=arm, equal=equal)
                if result := content["pieces"].get(piece.key):
                    own = Comparison({arm: {0: result}}, (0,), known["patient"])
                    seconds = known["seconds"].get(arm, result["seconds"] / result["iterations"])
                    yield Point(seconds * result["iterations"] / 60, own.mean(arm), equal)

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
    swatches: dict[str, Patch] = {}  # legend entries by title
    for setup, axis in zip(setups, axes.flat, strict=False):
        for number, (name, arm) in enumerate(ARMS.items()):
            if found := points(content, setup, name) if setup in content["setups"] else []:
                minutes, dice = [point.minutes for point in found], [point.dice for point in found]
                color, is_main = f"C{number}", name in MAIN
                axis.plot(minutes, dice, "-", color=color, linewidth=1.8 if is_main else 0.8)
                swatches[arm.title] = Patch(color=color)
                for point in found:  # hollow ones on top, so that none hides another
                    axis.plot(
                        point.minutes,
                        point.dice,
                        _MARKERS[point.equal],
                        color=color,
                        markersize=6,
                        markerfacecolor=color if is_main else "none",
                        zorder=2 if is_main else 3,
                    )
        axis.set(
            title=setup_title(setup),
            xlabel="CPU minutes, from timed iterations",
            ylabel="mean Dice, fold 0",
            xscale="log",
        )
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    if swatches:
        titles = [arm.title for arm in ARMS.values() if arm.title in swatches]
        figure.legend([swatches[title] for title in titles], titles, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(
        "dots: as many iterations as nnU-Net's U-Net; squares: as much time; filled: the networks of the first table; "
        "lines join separate trainings",
        fontsize=9,
    )
    figure.savefig(file, dpi=110, format="png")
    plt.close(figure)
