"""Dice against time per case, a point for every setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure  # rather than pyplot: no display and no global state
from matplotlib.ticker import NullFormatter

from factorizer_nnunet.core.atomic_files import atomic_file
from factorizer_nnunet.tuning.selection import Row
from factorizer_nnunet.tuning.settings import Setting

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")  # told apart by the colour-blind, too
_TICKS = [mantissa * 10.0**power for power in range(-4, 3) for mantissa in (1, 2, 5)]
_MARKERS = ("o", "s", "^", "D", "v", "P")


def draw(rows: Sequence[Row], reference: Setting, chosen: Setting, target: Path) -> None:
    """Write a PNG, whole: colours tell mirroring, shapes tile steps; filled points have all iterations and shifts."""
    figure = Figure(figsize=(7.5, 4.8))
    axes = figure.subplots()
    mirrorings = sorted({row.setting.mirroring for row in rows}, key=lambda m: (len(m), m))
    steps = sorted({row.setting.tile_step_size for row in rows})
    for row in rows:
        setting = row.setting
        colour = _COLOURS[mirrorings.index(setting.mirroring) % len(_COLOURS)]
        is_full = (setting.num_iters, setting.num_shifts) == (reference.num_iters, reference.num_shifts)
        axes.plot(
            _time(row),
            row.dice,
            _MARKERS[steps.index(setting.tile_step_size) % len(_MARKERS)],
            color=colour,
            markerfacecolor=colour if is_full else "none",
            markersize=7,
            alpha=0.9,
        )
    axes.set_xscale("log")
    axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(min(map(_time, rows)) / 1.3, max(map(_time, rows)) * 1.3)
    best = [row for row in rows if row.is_best]
    axes.plot([_time(row) for row in best], [row.dice for row in best], color="#777777", linewidth=1, zorder=0)
    reference_row = next(row for row in rows if row.setting == reference)
    _mark(axes, reference_row, f"stock command, {reference_row.seconds:.3g} s", below=True)
    if chosen != reference:
        _mark(axes, next(row for row in rows if row.setting == chosen), "chosen", below=False)
    for place, mirroring in enumerate(mirrorings):
        words = f"mirroring {', '.join(map(str, mirroring))}" if mirroring else "no mirroring"
        axes.plot([], [], "o", color=_COLOURS[place % len(_COLOURS)], label=words)
    for place, step in enumerate(steps):
        axes.plot([], [], _MARKERS[place % len(_MARKERS)], color="#444444", label=f"tile step {step:g}")
    axes.plot([], [], "o", color="#444444", markerfacecolor="none", label="fewer iterations or shifts")
    axes.plot([], [], color="#777777", linewidth=1, label="beaten by none")
    axes.set_xlabel("time of the sliding window, as a part of the stock command's")
    axes.set_ylabel("mean Dice of the folds' validation cases")
    axes.grid(alpha=0.3)
    axes.margins(y=0.15)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    with atomic_file(target) as draft:
        figure.savefig(draft, dpi=130, format="png")


def _time(row: Row) -> float:
    return 1 / row.speed_up


def _mark(axes: Axes, row: Row, words: str, below: bool) -> None:
    low, high = axes.get_xlim()
    side = "right" if _time(row) ** 2 > low * high else "left"  # towards the middle of the logarithmic axis
    axes.annotate(
        words,
        (_time(row), row.dice),
        xytext=(0, -26 if below else 22),
        textcoords="offset points",
        ha=side,
        fontsize=9,
        arrowprops={"arrowstyle": "-", "linewidth": 0.8},
    )
