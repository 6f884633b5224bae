"""Which cases lie far from the rest of their set, in ways that often are mistakes of a file rather than of nature.

Compared are lesion volume, intensities of each channel, size and spacing, mostly as logarithms, since twice as much is
as odd as half as much. The measure is the robust z-score of Iglewicz and Hoaglin (1993), cut at 3.5 as they advise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from factorizer_nnunet.dataset_conversion.check import Examined
from factorizer_nnunet.pages.markup import short

MIN_CASES = 8  # below, a middle and a spread say little
CUT = 3.5
# What spread is assumed at least: 1 %, so that rounding in headers does not stand out where all others are equal.
_LEAST_SPREAD = math.log(1.01)
_LEAST_SPREAD_OF_LOW = 0.1  # of the usual range of intensities: backgrounds just above 0 are no oddity


@dataclass(frozen=True)
class Outlier:
    """In what a case differs from its set, by how much, and in words."""

    what: str
    z: float
    text: str


@dataclass(frozen=True)
class _Feature:
    """One number of every case that has it: as compared, and as told to the user."""

    what: str
    values: Mapping[str, float]
    shown: Mapping[str, str]
    least_spread: float = _LEAST_SPREAD


def robust_z(values: Sequence[float], least_spread: float) -> list[float]:
    """Distance of each value from the median in robust standard deviations, with its sign.

    The deviation is 1.4826 times the median absolute deviation from the median; where that is nothing, as in sets in
    which most are equal, 1.2533 times the mean one. Both equal the standard deviation of normal values.

    Args:
        values: at least one.
        least_spread: the smallest deviation taken, above 0.
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
    """What is odd about each case, strongest first; cases with nothing odd are left out.

    Args:
        examined: the cases of one set, each with facts for every channel.
        channels: their names.
        volumes_mm3: of the whole label, of the labelled cases; empty labels are not compared.
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
    """One mark for each text: a size that is odd along two axes is said once."""
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
        intensities = {case: f"{short(f.low, 4)} to {short(f.high, 4)}" for case, f in facts.items()}
        ranges = {case: f.high - f.low for case, f in facts.items() if f.high > f.low}
        if ranges:
            yield _Feature(f"{channel} intensities", {c: math.log(r) for c, r in ranges.items()}, intensities)
            least = _LEAST_SPREAD_OF_LOW * statistics.median(ranges.values())
            yield _Feature(f"{channel} intensities", {c: f.low for c, f in facts.items()}, intensities, least)
        if number and all(e.images[number].size == e.images[0].size for e in examined):
            continue  # the first channel's grid is told once
        prefix = f"{channel} " if number else ""
        for axis in range(3):
            yield _Feature(
                f"{prefix}size",
                {case: math.log(f.size[axis]) for case, f in facts.items()},
                {case: " × ".join(map(str, f.size)) for case, f in facts.items()},
            )
            yield _Feature(
                f"{prefix}spacing",
                {case: math.log(f.spacing_mm[axis]) for case, f in facts.items()},
                {case: " × ".join(short(s) for s in f.spacing_mm) + " mm" for case, f in facts.items()},
            )
