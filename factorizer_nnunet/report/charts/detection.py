"""Sensitivity by lesion size: the fraction of reference lesions that were detected, in bins of equal counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.core.wording import short
from factorizer_nnunet.evaluation.scores import Lesion
from factorizer_nnunet.pages.markup import text_of
from factorizer_nnunet.report.charts.axes import Figure, Scale, log_scale_for, mark, model_class
from factorizer_nnunet.report.statistics import wilson_interval

_MAX_BINS, _MIN_LESIONS = 5, 8  # lesions per bin
_OFFSET = 5  # pixels between models


@dataclass(frozen=True)
class Bin:
    """Lesions of similar volume, and how many of them were detected; volumes in ml."""

    low: float
    high: float
    middle: float
    found: int
    lesions: int


def bins_of(lesions: Sequence[Lesion]) -> list[Bin]:
    """Bins with equal numbers of lesions, smallest lesions first."""
    ordered = sorted(lesions, key=lambda lesion: lesion.volume_ml)
    count = max(1, min(_MAX_BINS, len(ordered) // _MIN_LESIONS))
    bins = []
    for part in np.array_split(np.arange(len(ordered)), count):
        own = [ordered[number] for number in part]
        volumes = [lesion.volume_ml for lesion in own]
        found = sum(lesion.detected for lesion in own)
        bins.append(Bin(volumes[0], volumes[-1], float(np.exp(np.mean(np.log(volumes)))), found, len(own)))
    return bins


def detection_svg(
    region: str, models: Mapping[str, tuple[int, Sequence[Lesion]]], case_numbers: Mapping[str, int]
) -> str:
    """A plot for one region.

    Args:
        region: of the lesions.
        models: by title, the place of the model and the reference lesions, at least one.
        case_numbers: by case name.
    """
    figure = Figure(width=400, height=270, top=24, bottom=38 + 16 * len(models))
    volumes = [lesion.volume_ml for _, lesions in models.values() for lesion in lesions]
    x = log_scale_for(volumes, figure.left, figure.edge)
    y = Scale(0, 1, figure.base, figure.top)
    figure.y_axis(y, "fraction of lesions detected")
    figure.line(figure.left, figure.base, figure.edge, figure.base, "axis")
    texts = []
    for row, (title, (place, lesions)) in enumerate(models.items()):
        bins = bins_of(lesions)
        offset = _OFFSET * (row - (len(models) - 1) / 2)  # so that equal models do not cover each other
        kind = model_class(place)
        points = [(x(one.middle) + offset, y(one.found / one.lesions)) for one in bins]
        figure.add(f'<polyline class="mean {kind}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>')
        for one, (a, b) in zip(bins, points, strict=True):
            low, high = wilson_interval(one.found, one.lesions)
            figure.line(a, y(low), a, y(high), f"whisker {kind}")
            tip = f"{title}: {one.found} of {one.lesions} lesions of {short(one.low)} to {short(one.high)} ml detected"
            figure.add(mark(a, b, place, None, tip, kind="p", radius=4))
            texts.append(f"{tip}.")
        level = figure.base + 10 + 16 * row
        for lesion in lesions:
            state = "detected" if lesion.detected else "missed"
            tip = f"{title}, {region}: {short(lesion.volume_ml)} ml, {state}"
            figure.add(
                f'<rect class="tick {kind} {state}" x="{x(lesion.volume_ml) - 0.75:.1f}" y="{level - 5}" width="1.5" '
                f'height="10" data-c="{case_numbers[lesion.case]}" data-t="{text_of(tip)}"/>'
            )
    lowest = figure.base + 16 * len(models) + 3
    for value in x.ticks(6):
        figure.text(x(value), lowest + 12, f"{value:g}")
    figure.text((figure.left + figure.edge) / 2, figure.height - 3, "volume of the reference lesion, ml", kind="title")
    return figure.svg(f"Sensitivity by lesion size, {region}. {' '.join(texts)}")
