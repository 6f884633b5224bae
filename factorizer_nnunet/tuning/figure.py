"""Dice against time per case, a point for every setting."""

from __future__ import annotations

import itertools
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure  # rather than pyplot: no display and no global state
from matplotlib.ticker import NullFormatter

from factorizer_nnunet.core.atomic_files import atomic_file
from factorizer_nnunet.core.wording import short
from factorizer_nnunet.tuning.selection import Comparison, Row

# Distinct for colour-blind readers, too.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_TICKS = [mantissa * 10.0**power for power in range(-4, 3) for mantissa in (1, 2, 5)]
_MARKERS = ("o", "s", "^", "D", "v", "P")
_GREY, _LIGHT = "#444444", "#777777"


def draw(found: Comparison, target: Path) -> None:
    """Write a PNG atomically: colours show mirroring, shapes tile steps; filled points are as trained otherwise."""
    figure = Figure(figsize=(7.5, 4.8))
    axes = figure.subplots()
    mirrorings = sorted({row.setting.mirroring for row in found.rows}, key=lambda m: (len(m), m))
    colours = dict(zip(mirrorings, itertools.cycle(_COLOURS), strict=False))
    steps = sorted({row.setting.tile_step_size for row in found.rows})
    markers = dict(zip(steps, itertools.cycle(_MARKERS), strict=False))
    reference = next(row for row in found.rows if row.setting == found.reference)
    for row in found.rows:
        colour, marker = colours[row.setting.mirroring], markers[row.setting.tile_step_size]
        is_full = (row.setting.num_iters, row.setting.num_shifts) == (
            reference.setting.num_iters,
            reference.setting.num_shifts,
        )
        fill = colour if is_full else "none"
        axes.plot(_time(row), row.dice, marker, color=colour, markerfacecolor=fill, markersize=7, alpha=0.9)
    best = [row for row in found.rows if row.is_best]
    axes.plot([_time(row) for row in best], [row.dice for row in best], color=_LIGHT, linewidth=1, zorder=0)
    times = [_time(row) for row in found.rows]
    axes.set_xscale("log")
    axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(min(times) / 1.3, max(times) * 1.3)
    axes.set_xlabel("time of the sliding window, relative to the stock command")
    axes.set_ylabel("mean Dice of the folds' validation cases")
    axes.grid(alpha=0.3)
    axes.margins(y=0.15)
    _mark(axes, reference, f"stock command, {short(reference.seconds)} s", below=True)
    if found.chosen != reference:
        _mark(axes, found.chosen, "chosen", below=False)
    for mirroring, colour in colours.items():
        words = f"mirroring {', '.join(map(str, mirroring))}" if mirroring else "no mirroring"
        axes.plot([], [], "o", color=colour, label=words)
    for step, marker in markers.items():
        axes.plot([], [], marker, color=_GREY, label=f"tile step {step:g}")
    axes.plot([], [], "o", color=_GREY, markerfacecolor="none", label="fewer iterations or shifts")
    axes.plot([], [], color=_LIGHT, linewidth=1, label="best settings")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    with atomic_file(target) as draft:
        figure.savefig(draft, dpi=130, format="png")


def _time(row: Row) -> float:
    return 1 / row.speed_up


def _mark(axes: Axes, row: Row, words: str, below: bool) -> None:
    low, high = axes.get_xlim()
    side = "right" if _time(row) ** 2 > low * high else "left"  # towards the middle of the log axis
    axes.annotate(
        words,
        (_time(row), row.dice),
        xytext=(0, -26 if below else 22),
        textcoords="offset points",
        ha=side,
        fontsize=9,
        arrowprops={"arrowstyle": "-", "linewidth": 0.8},
    )
