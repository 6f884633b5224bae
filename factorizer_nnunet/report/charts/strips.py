"""Strip and box plots: a dot for every case, side by side where values are equal, over quartiles and median."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.evaluation.metrics import Metric
from factorizer_nnunet.report.charts.axes import Figure, Scale, log_scale_for, mark, model_class, scale_for

_STRIP, _GAP = 62, 22  # width in pixels of a model's strip, and between regions
_DOT = 2.4
_SKEWED = 30  # ratio of the largest value to the median from which the axis is logarithmic


@dataclass(frozen=True)
class Strip:
    """The values of a metric in a region for one model."""

    title: str
    place: int
    values: np.ndarray


def strip_svg(metric: Metric, strips: Mapping[str, Sequence[Strip]], case_numbers: Sequence[int]) -> str:
    """A plot of one metric: for each region, the models side by side."""
    models = max(map(len, strips.values()))
    width = max(58 + len(strips) * (models * _STRIP + _GAP), 340)
    figure = Figure(width=width, height=270, left=46, bottom=30, top=12)
    values = np.concatenate([strip.values for group in strips.values() for strip in group])
    scale = _scale(metric, values[~np.isnan(values)], figure)
    figure.y_axis(scale, "")
    slot = (figure.edge - figure.left) / len(strips)
    texts = []
    for number, (region, group) in enumerate(strips.items()):
        start = figure.left + slot * number
        figure.text(start + slot / 2, figure.height - 8, region, kind="title")
        inner = (slot - _GAP) / len(group)
        for place, strip in enumerate(group):
            centre = start + _GAP / 2 + inner * (place + 0.5)
            texts.append(_draw(figure, scale, strip, centre, inner, metric, region, case_numbers))
    figure.line(figure.left, figure.base, figure.edge, figure.base, "axis")
    return figure.svg(f"{metric.title} of all cases. {' '.join(texts)}")


def _scale(metric: Metric, values: np.ndarray, figure: Figure) -> Scale:
    finite = values[np.isfinite(values)]
    share = metric.unit == "" and metric.digits == 3  # such as Dice
    if share:
        return scale_for(finite, figure.base, figure.top, include=(1.0,), within=(0.0, 1.0))
    positive = finite[finite > 0]
    if positive.size and positive.size == finite.size and positive.max() > _SKEWED * np.median(positive):
        return log_scale_for(positive, figure.base, figure.top)
    return scale_for(finite, figure.base, figure.top, include=(0.0,))


def _draw(
    figure: Figure, scale: Scale, strip: Strip, centre: float, width: float, metric: Metric, region: str,
    case_numbers: Sequence[int],
) -> str:  # fmt: skip
    """Draw one strip; returns its description."""
    known = [int(case) for case in np.flatnonzero(~np.isnan(strip.values))]
    if not known:
        figure.text(centre, (figure.top + figure.base) / 2, "undefined", kind="soft")
        return f"{strip.title}, {region}: undefined."
    quartiles = np.quantile(np.nan_to_num(strip.values[known], posinf=scale.high), (0.25, 0.5, 0.75))
    low, middle, high = (scale(value) for value in quartiles)
    half = min(width * 0.4, 26)
    figure.add(
        f'<rect class="box {model_class(strip.place)}" x="{centre - half:.1f}" y="{high:.1f}" '
        f'width="{2 * half:.1f}" height="{max(low - high, 0.5):.1f}" rx="3"/>'
    )
    heights = [scale(strip.values[case]) for case in known]
    for case, y, aside in zip(known, heights, beeswarm(heights, width / 2 - _DOT - 1), strict=True):
        tip = f"{strip.title}, {region}: {metric.with_unit(metric.shown(strip.values[case]))}"
        figure.add(mark(centre + aside, y, strip.place, case_numbers[case], tip, radius=_DOT))
    figure.line(centre - half, middle, centre + half, middle, f"median {model_class(strip.place)}")
    first, second, third = (metric.with_unit(metric.shown(value)) for value in quartiles)
    return (
        f"{strip.title}, {region}: median {second}, middle half from {first} to {third}, {len(known)} of "
        f"{strip.values.size} cases."
    )


def beeswarm(heights: Sequence[float], half_width: float) -> list[float]:
    """The offset of each dot, at most the half width, so that dots do not cover each other if there is room."""
    aside = [0.0] * len(heights)
    placed: list[tuple[float, float]] = []
    diameter = 2 * _DOT
    candidates = sorted(
        (sign * step * diameter / 4 for step in range(int(half_width * 4 / diameter) + 1) for sign in (1, -1)), key=abs
    )
    for number in sorted(range(len(heights)), key=lambda n: heights[n]):
        y = heights[number]
        near = [(x0, y0) for x0, y0 in placed if abs(y - y0) < diameter]

        def room(x: float, y: float = y, near: Sequence[tuple[float, float]] = near) -> float:
            return min(((x - x0) ** 2 + (y - y0) ** 2 for x0, y0 in near), default=math.inf)

        x = next((x for x in candidates if room(x) >= diameter**2 * 0.9), None)
        aside[number] = max(candidates, key=room) if x is None else x
        placed.append((aside[number], y))
    return aside
