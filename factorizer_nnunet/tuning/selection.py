"""What each setting costs in time and Dice, which settings no other beats, and which one is chosen.

The rule: of all settings whose mean Dice is at most a tolerance below the stock command's, take the fastest; settings
within 5 % of its time count as equally fast, and of these the one with the highest Dice is taken. So a setting that
saves no time, such as fewer iterations at rank 1, is not changed because of timing noise. Nothing is chosen from fewer
than five cases, or where a change of Dice has no interval: so little shows nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.imaging.limits import at_most
from factorizer_nnunet.report.statistics import estimate
from factorizer_nnunet.tuning.cases import mean_of_known
from factorizer_nnunet.tuning.measure import Measurement
from factorizer_nnunet.tuning.search_space import PredictionSettings

DEFAULT_TOLERANCE = 0.002
SAME_TIME = 1.05
FEWEST_CASES = 5  # from which a setting is chosen


@dataclass(frozen=True, kw_only=True)
class Row:
    """Results of one setting over all cases."""

    setting: PredictionSettings
    cases: int  # in which both this setting and the stock command have a Dice
    dice: float  # mean over regions of the mean over the cases that have the region, as nnU-Net averages
    by_region: dict[str, float | None]  # the latter means; None if no case has the region
    change: float  # of Dice, against the stock command
    change_low: float  # 95 % interval of the mean change over cases; NaN for fewer than two cases
    change_high: float
    worst_change: float  # of a single case
    seconds: float  # of the sliding window, median over cases
    speed_up: float  # the stock command's seconds over these: median over cases, so that busy moments do not matter
    is_best: bool  # no other setting is both faster and at least as good


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All settings, the fastest first, the stock command's setting, and the chosen one."""

    rows: list[Row]
    reference: PredictionSettings
    chosen: Row


def compare(measurements: Sequence[Measurement], settings: Sequence[PredictionSettings]) -> list[Row]:
    """A row for each setting, the fastest first.

    Args:
        measurements: of the same cases for every setting.
        settings: the first is the reference of all comparisons.
    """
    by_setting: dict[PredictionSettings, dict[tuple[str, str], Measurement]] = {setting: {} for setting in settings}
    for measurement in measurements:
        if measurement.setting in by_setting:
            by_setting[measurement.setting][measurement.fold, measurement.case] = measurement
    cases = list(by_setting[settings[0]])
    measured = {setting: [found[case] for case in cases] for setting, found in by_setting.items()}
    regions = {s: {name: mean_of_known(m.dice[name] for m in ms) for name in ms[0].dice} for s, ms in measured.items()}
    dice = {s: float(np.nanmean(list(means.values()))) for s, means in regions.items()}
    per_case = {s: np.array([mean_of_known(m.dice.values()) for m in ms]) for s, ms in measured.items()}
    seconds = {s: np.array([m.seconds for m in ms]) for s, ms in measured.items()}
    speed_up = {s: float(np.median(seconds[settings[0]] / taken)) for s, taken in seconds.items()}
    rows = []
    for setting in settings:
        changes = per_case[setting] - per_case[settings[0]]
        interval = estimate(changes)
        rows.append(
            Row(
                setting=setting,
                cases=interval.defined,
                dice=dice[setting],
                by_region={name: None if np.isnan(mean) else mean for name, mean in regions[setting].items()},
                change=interval.mean,
                change_low=interval.low,
                change_high=interval.high,
                worst_change=float(np.fmin.reduce(changes)),  # NaN only if all are
                seconds=float(np.median(seconds[setting])),
                speed_up=speed_up[setting],
                is_best=not any(speed_up[s] > speed_up[setting] and dice[s] >= dice[setting] for s in settings),
            )
        )
    return sorted(rows, key=lambda row: -row.speed_up)


def unfit_to_choose(rows: Sequence[Row]) -> str | None:
    """Why no setting can be chosen from these measurements; None if one can."""
    cases = min(row.cases for row in rows)
    if cases < FEWEST_CASES:
        return f"only {count_of(cases, 'measured case')} with a Dice, and at least {FEWEST_CASES} are needed"
    if all(math.isnan(row.change_low) for row in rows):
        return "the changes of Dice have no interval"
    return None


def choose(rows: Sequence[Row], tolerance: float, reference: PredictionSettings) -> Row:
    """The row to take by the rule above, with the tolerance in Dice.

    It is that of ``reference`` if no other is faster, or if the cases are too few.
    """
    (stock,) = (row for row in rows if row.setting == reference)
    if unfit_to_choose(rows) is not None:
        return stock
    good = [row for row in rows if at_most(-row.change, tolerance) and not math.isnan(row.change_low)]
    fastest = max((row.speed_up for row in good), default=1.0)
    if fastest <= SAME_TIME:
        return stock
    return max((row for row in good if SAME_TIME * row.speed_up >= fastest), key=lambda row: (row.dice, row.speed_up))
