"""Paired differences of two models, and how often each model has each rank when cases are resampled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from factorizer_nnunet.pages.markup import text_of
from factorizer_nnunet.report.charts.axes import Figure, mark, model_class, scale_for
from factorizer_nnunet.report.charts.strips import beeswarm
from factorizer_nnunet.report.statistics import Difference

_ROW = 62


def differences_svg(
    what: str, unit: str, rows: Mapping[str, tuple[Difference, np.ndarray]], place: int, case_numbers: Sequence[int]
) -> str:
    """The difference in every case, and the mean with its interval; a row for each region.

    Args:
        what: title of the horizontal axis.
        unit: of the differences, or "".
        rows: by region, the comparison and the differences.
    """
    figure = Figure(width=400, height=66 + _ROW * len(rows), left=14, top=14)
    finite = np.concatenate([values for _, values in rows.values()])
    x = scale_for(finite[np.isfinite(finite)], figure.left, figure.edge, include=(0.0,))
    for value in x.ticks(6):
        figure.line(x(value), figure.top, x(value), figure.base, "grid")
    figure.x_axis(x, what)
    figure.line(x(0), figure.top, x(0), figure.base, "zero")
    texts = []
    for number, (region, (found, values)) in enumerate(rows.items()):
        centre = figure.top + _ROW * (number + 0.55)
        figure.text(figure.left, centre - 20, region, "start", "title")
        known = [int(case) for case in np.flatnonzero(~np.isnan(values))]
        spread = beeswarm([x(values[case]) for case in known], 13)
        for case, aside in zip(known, spread, strict=True):
            tip = f"{region}: {values[case]:+.3f}{' ' + unit if unit else ''}".replace("-", "−")
            figure.add(mark(x(values[case]), centre + aside, place, case_numbers[case], tip))
        mean = found.estimate
        if not math.isnan(mean.low):
            figure.line(x(mean.low), centre, x(mean.high), centre, "interval")
        if math.isfinite(mean.mean):
            figure.add(f'<circle class="estimate" cx="{x(mean.mean):.1f}" cy="{centre:.1f}" r="4.5"/>')
        interval = "" if math.isnan(mean.low) else f", 95 % interval {mean.low:+.3f} to {mean.high:+.3f}"
        texts.append(f"{region}: mean {mean.mean:+.3f}{interval}." if mean.defined else f"{region}: not defined.")
    return figure.svg(f"{what}, all cases. {' '.join(texts)}")


def ranks_svg(title: str, shares: np.ndarray, models: Sequence[tuple[str, int]]) -> str:
    """A bar for each rank, divided by how often each model has it.

    Args:
        title: what was ranked.
        shares: (models, ranks).
        models: title and place of each, in the order of `shares`.
    """
    figure = Figure(width=300, height=26 * shares.shape[1] + 8, left=52, right=6, top=4, bottom=4)
    texts = []
    for rank in range(shares.shape[1]):
        y, start = 4 + 26 * rank, float(figure.left)
        figure.text(46, y + 15, f"rank {rank + 1}", "end")
        for (name, place), share in zip(models, shares[:, rank], strict=True):
            width = (figure.edge - figure.left) * share
            if share <= 0:
                continue
            tip = f"{name}: rank {rank + 1} in {share:.0%} of resamples"
            figure.add(
                f'<rect class="bar {model_class(place)}" x="{start:.1f}" y="{y}" width="{width:.1f}" height="20" '
                f'rx="2" data-t="{text_of(tip)}"/>'
            )
            if share >= 0.14:
                figure.text(start + width / 2, y + 14, f"{share:.0%}", kind="on")
            start += width
            texts.append(f"{tip}.")
    return figure.svg(f"{title}. {' '.join(texts)}")
