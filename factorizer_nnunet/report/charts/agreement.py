"""Bland–Altman plots of volumes (Bland and Altman, Lancet 1986): difference against mean of both measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.pages.markup import short
from factorizer_nnunet.report.charts.axes import Figure, log_scale_for, mark, model_class, scale_for

_WIDE = 100  # times the smallest volume from which on the largest asks for a logarithmic axis


@dataclass(frozen=True)
class Agreement:
    """Mean difference and limits of agreement, mean ± 1.96 standard deviations, in ml."""

    bias: float
    low: float
    high: float


def agreement(reference: np.ndarray, prediction: np.ndarray) -> Agreement:
    """Of volumes in ml, (cases,), at least two."""
    change = prediction - reference
    spread = 1.96 * float(change.std(ddof=1))
    return Agreement(float(change.mean()), float(change.mean()) - spread, float(change.mean()) + spread)


def agreement_svg(
    title: str, region: str, place: int, reference: np.ndarray, prediction: np.ndarray, case_numbers: Sequence[int],
    limits: tuple[float, float],
    widest: tuple[float, float],
) -> str:  # fmt: skip
    """A plot for one model and region.

    Args:
        title: the model's name.
        region: what was measured.
        place: of the model, for its colour.
        reference, prediction: volumes in ml, (cases,).
        case_numbers: the place of each case in the page's list.
        limits: smallest and largest difference in ml that the plot shows.
        widest: smallest and largest mean of both in ml; as `limits`, the same for plots that are to be compared.
    """
    figure = Figure(width=420, height=270, right=62, top=24)
    middle, change = (reference + prediction) / 2, prediction - reference
    found = agreement(reference, prediction)
    y = scale_for(limits, figure.base, figure.top, include=(0.0,))
    wide = widest[0] > 0 and widest[1] > _WIDE * widest[0]
    x = (log_scale_for if wide else scale_for)(widest, figure.left, figure.edge)
    figure.y_axis(y, "prediction − reference, ml")
    figure.x_axis(x, "mean of both, ml")
    figure.line(figure.left, y(0), figure.edge, y(0), "zero")
    for value, kind in ((found.high, "limit"), (found.bias, "bias"), (found.low, "limit")):
        figure.line(figure.left, y(value), figure.edge, y(value), f"{kind} {model_class(place)}")
    for value, name in _apart(((found.high, "+1.96 SD"), (found.bias, "mean"), (found.low, "−1.96 SD")), y):
        figure.text(figure.edge + 4, value[0] - 1, name, "start", "note")
        figure.text(figure.edge + 4, value[0] + 9, _signed(value[1], found), "start", "note")
    for number, mean, differs, truth in zip(case_numbers, middle, change, reference, strict=True):
        tip = f"{title}, {region}: {_signed(differs, found)} ml of {short(truth)} ml"
        figure.add(mark(x(mean), y(differs), place, number, tip))
    return figure.svg(
        f"Bland–Altman plot, {title}, {region}: mean difference {_signed(found.bias, found)} ml, limits of agreement "
        f"{_signed(found.low, found)} to {_signed(found.high, found)} ml, {reference.size} cases."
    )


def _signed(value: float, found: Agreement) -> str:
    """A number with its sign and as many digits as the width of the limits deserves."""
    width = found.high - found.low
    digits = max(0, 1 - math.floor(math.log10(width))) if width > 0 else 2
    return f"{value:+.{digits}f}".replace("-", "−")


def _apart(
    lines: Sequence[tuple[float, str]], y: Callable[[float], float], least: float = 24
) -> list[tuple[tuple[float, float], str]]:
    """Heights for the words beside three lines, highest first, so that they do not lie over each other."""
    places = [y(value) for value, _ in lines]
    places[0], places[2] = min(places[0], places[1] - least), max(places[2], places[1] + least)
    return [((place, value), name) for place, (value, name) in zip(places, lines, strict=True)]
