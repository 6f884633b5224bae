"""Bland–Altman plots of volumes (Bland and Altman, Lancet 1986): the difference of two measurements by their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.core.wording import short
from factorizer_nnunet.report.charts.axes import Figure, log_scale_for, mark, model_class, scale_for

_WIDE = 100  # ratio of the largest to the smallest volume from which the axis is logarithmic
_LABEL_DISTANCE = 24  # pixels between the labels of two lines


@dataclass(frozen=True)
class Volumes:
    """Volumes of a region in ml, (cases,)."""

    reference: np.ndarray
    prediction: np.ndarray
    case_numbers: Sequence[int]

    @property
    def differences(self) -> np.ndarray:
        """Prediction minus reference."""
        return self.prediction - self.reference

    @property
    def means(self) -> np.ndarray:
        """Mean of prediction and reference."""
        return (self.reference + self.prediction) / 2


@dataclass(frozen=True)
class Agreement:
    """Mean difference and limits of agreement, mean ± 1.96 standard deviations, in ml."""

    bias: float
    low: float
    high: float


def agreement(volumes: Volumes) -> Agreement:
    """The agreement of at least two cases."""
    bias, spread = float(volumes.differences.mean()), 1.96 * float(volumes.differences.std(ddof=1))
    return Agreement(bias, bias - spread, bias + spread)


def agreement_svg(
    title: str, region: str, place: int, volumes: Volumes, limits: tuple[float, float], widest: tuple[float, float]
) -> str:
    """A plot for one model and region.

    Args:
        limits: range of differences in ml, the same for plots that are compared.
        widest: range of means in ml, likewise.
    """
    figure = Figure(width=420, height=270, right=62, top=24)
    found = agreement(volumes)
    y = scale_for(limits, figure.base, figure.top, include=(0.0,))
    is_wide = widest[0] > 0 and widest[1] > _WIDE * widest[0]
    x = (log_scale_for if is_wide else scale_for)(widest, figure.left, figure.edge)
    figure.y_axis(y, "prediction − reference, ml")
    figure.x_axis(x, "mean of both, ml")
    figure.line(figure.left, y(0), figure.edge, y(0), "zero")
    lines = ((found.high, "limit", "+1.96 SD"), (found.bias, "bias", "mean"), (found.low, "limit", "−1.96 SD"))
    middle = y(found.bias)
    heights = (min(y(found.high), middle - _LABEL_DISTANCE), middle, max(y(found.low), middle + _LABEL_DISTANCE))
    for (value, kind, name), height in zip(lines, heights, strict=True):
        figure.line(figure.left, y(value), figure.edge, y(value), f"{kind} {model_class(place)}")
        figure.text(figure.edge + 4, height - 1, name, "start", "note")
        figure.text(figure.edge + 4, height + 9, _signed(value, found), "start", "note")
    columns = (volumes.case_numbers, volumes.means, volumes.differences, volumes.reference)
    for number, mean, change, reference in zip(*columns, strict=True):
        tip = f"{title}, {region}: {_signed(change, found)} ml, reference {short(reference)} ml"
        figure.add(mark(x(mean), y(change), place, number, tip))
    return figure.svg(
        f"Bland–Altman plot, {title}, {region}: mean difference {_signed(found.bias, found)} ml, limits of agreement "
        f"{_signed(found.low, found)} to {_signed(found.high, found)} ml, {volumes.reference.size} cases."
    )


def _signed(value: float, found: Agreement) -> str:
    """A number with its sign and a number of decimals that suits the limits of agreement."""
    width = found.high - found.low
    digits = max(0, 1 - math.floor(math.log10(width))) if width > 0 else 2
    return f"{value:+.{digits}f}".replace("-", "−")
