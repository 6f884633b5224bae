"""Find cases that differ strongly from the rest of their set, which often indicates a mistake in a file.

Compared are lesion volume, intensities of each channel, size and spacing, mostly as logarithms, because twice and half
the usual value are equally unusual. The measure is the robust z-score of Iglewicz and Hoaglin (1993) with their
threshold of 3.5.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from factorizer_nnunet.dataset_conversion.check import Examined
from factorizer_nnunet.pages.markup import short

MIN_CASES = 8  # with fewer, median and spread mean little
CUT = 3.5
# Minimum spread, 1 %: rounding in headers must not stand out if all other cases are equal.
_LEAST_SPREAD = math.log(1.01)
_LEAST_SPREAD_OF_LOW = 0.1  # relative to the usual intensity range: a background just above 0 is not unusual


@dataclass(frozen=True)
class Outlier:
    """A feature in which a case differs from its set, its robust z-score, and a description."""

    what: str
    z: float
    text: str


@dataclass(frozen=True)
class _Feature:
    """One number of each case that has it, as compared and as shown to the user."""

    what: str
    values: Mapping[str, float]
    shown: Mapping[str, str]
    least_spread: float = _LEAST_SPREAD


def robust_z(values: Sequence[float], least_spread: float) -> list[float]:
    """Signed distance of each value from the median in robust standard deviations.

    The deviation is 1.4826 times the median absolute deviation from the median or, if that is too small because most
    values are equal, 1.2533 times the mean absolute deviation. Both equal the standard deviation of normal values.

    Args:
        values: at least one.
        least_spread: lower bound of the deviation, above 0.
    """
    middle = statistics.median(values)
    distances = [abs(value - middle) for value in values]
    spread = 1.4826 * statistics.median(distances)
    if spread < least_spread:
        spread = max(least_spread, 1.2533 * statistics.fmean(distances))
    return [(value - middle) / spread for value in values]


def find_outliers(
    examined: Sequence[Examined], channels: Sequence[str], volumes_mm3: Mapping[str, float]
) -> dict[str, list[Outlier]]:
    """Return the outlying features of each case, strongest first; cases without any are omitted.

    Args:
        examined: the cases of one set, each with facts for every channel.
        channels: channel names.
        volumes_mm3: volume of the complete label of each labelled case; empty labels are not compared.
    """
    odd: dict[str, list[Outlier]] = {}
    for feature in _features(examined, channels, volumes_mm3):
        if len(feature.values) < MIN_CASES:
            continue
        scores = robust_z(list(feature.values.values()), feature.least_spread)
        z_of = dict(zip(feature.values, scores, strict=True))
        usual = feature.shown[min(z_of, key=lambda case: abs(z_of[case]))]
        for case, z in z_of.items():
            if abs(z) > CUT:
                text = f"{feature.what} {feature.shown[case]}, usually {usual}"
                odd.setdefault(case, []).append(Outlier(feature.what, z, text))
    return {case: _strongest(marks) for case, marks in odd.items()}


def _strongest(marks: Sequence[Outlier]) -> list[Outlier]:
    """One outlier per feature: a size that is unusual along two axes is reported once."""
    first: dict[str, Outlier] = {}
    for mark in sorted(marks, key=lambda mark: -abs(mark.z)):
        first.setdefault(mark.what, mark)
    return list(first.values())


def _features(
    examined: Sequence[Examined], channels: Sequence[str], volumes_mm3: Mapping[str, float]
) -> Iterator[_Feature]:
    volumes = {case: mm3 for case, mm3 in volumes_mm3.items() if mm3 > 0}
    yield _Feature(
        "volume",
        {case: math.log(mm3) for case, mm3 in volumes.items()},
        {case: f"{short(mm3 / 1000)} ml" for case, mm3 in volumes.items()},
    )
    for number, channel in enumerate(channels):
        facts = {e.case.name: e.images[number] for e in examined}
        present = {case: f for case, f in facts.items() if f.treatment != "absent"}
        intensities = {case: f"{short(f.low, 4)} to {short(f.high, 4)}" for case, f in present.items()}
        ranges = {case: f.high - f.low for case, f in present.items() if f.high > f.low}
        if ranges:
            yield _Feature(f"{channel} intensities", {c: math.log(r) for c, r in ranges.items()}, intensities)
            least = _LEAST_SPREAD_OF_LOW * statistics.median(ranges.values())
            yield _Feature(f"{channel} intensities", {c: f.low for c, f in present.items()}, intensities, least)
        if number and all(e.images[number].grid.size == e.images[0].grid.size for e in examined):
            continue  # the first channel's grid is reported once
        prefix = f"{channel} " if number else ""
        for axis in range(3):
            yield _Feature(
                f"{prefix}size",
                {case: math.log(f.grid.size[axis]) for case, f in facts.items()},
                {case: " × ".join(map(str, f.grid.size)) for case, f in facts.items()},
            )
            yield _Feature(
                f"{prefix}spacing",
                {case: math.log(f.grid.spacing[axis]) for case, f in facts.items()},
                {case: " × ".join(short(s) for s in f.grid.spacing) + " mm" for case, f in facts.items()},
            )
