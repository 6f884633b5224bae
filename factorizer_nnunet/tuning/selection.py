"""What the settings cost and are worth, which of them nothing beats, and the one that is taken.

The rule: of all settings whose mean Dice is at most a tolerance below the stock command's, the fastest; settings within
a twentieth of its time count as equally fast, and of these the one with the highest Dice is taken. So a knob that costs
nothing, as the iterations of rank 1 do, is not turned for the noise of a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.report.statistics import estimate
from factorizer_nnunet.tuning.cases import mean_dice
from factorizer_nnunet.tuning.measure import Measurement
from factorizer_nnunet.tuning.settings import Setting

DEFAULT_TOLERANCE = 0.002
SAME_TIME = 1.05


@dataclass(frozen=True, kw_only=True)
class Row:
    """A setting over all cases.

    Attributes:
        dice: mean over regions of the mean over the cases that have them, as nnU-Net counts.
        by_region: the latter means; None where no case has the region.
        change: of Dice, against the stock command.
        change_low, change_high: 95 % interval of the mean over cases of the change; NaN for fewer than two.
        worst_change: of a single case.
        seconds: median over cases, of the sliding window.
        speed_up: the stock command's seconds over these, median of the cases' ratios: a busy machine disturbs few.
        is_best: whether no other setting is both faster and at least as good.
    """

    setting: Setting
    dice: float
    by_region: dict[str, float | None]
    change: float
    change_low: float
    change_high: float
    worst_change: float
    seconds: float
    speed_up: float
    is_best: bool


def compare(measurements: Sequence[Measurement], settings: Sequence[Setting]) -> list[Row]:
    """A row for each setting, the fastest first.

    Args:
        measurements: of the same cases for every setting.
        settings: first the one that all are compared with.
    """
    of_setting: dict[Setting, dict[tuple[str, str], Measurement]] = {setting: {} for setting in settings}
    for measurement in measurements:
        if measurement.setting in of_setting:
            of_setting[measurement.setting][measurement.fold, measurement.case] = measurement
    cases = list(of_setting[settings[0]])
    regions = {setting: _by_region([rows[case] for case in cases]) for setting, rows in of_setting.items()}
    dice = {setting: mean_dice(values) for setting, values in regions.items()}
    seconds = {s: np.array([rows[case].seconds for case in cases]) for s, rows in of_setting.items()}
    speed_up = {s: float(np.median(seconds[settings[0]] / taken)) for s, taken in seconds.items()}
    per_case = {s: np.array([mean_dice(rows[case].dice) for case in cases]) for s, rows in of_setting.items()}
    result = []
    for setting in settings:
        changes = per_case[setting] - per_case[settings[0]]
        interval = estimate(changes)
        result.append(
            Row(
                setting=setting,
                dice=dice[setting],
                by_region=regions[setting],
                change=dice[setting] - dice[settings[0]],
                change_low=interval.low,
                change_high=interval.high,
                worst_change=float(np.nanmin(changes)) if not np.isnan(changes).all() else float("nan"),
                seconds=float(np.median(seconds[setting])),
                speed_up=speed_up[setting],
                is_best=not any(_beats(speed_up, dice, other, setting) for other in settings),
            )
        )
    return sorted(result, key=lambda row: -row.speed_up)


def choose(rows: Sequence[Row], tolerance: float, reference: Setting) -> Row:
    """The row of the setting to take, by the rule above.

    Args:
        rows: of ``compare``.
        tolerance: how much Dice may be lost against the stock command.
        reference: the stock command's setting, which stays if none is faster.
    """
    (stock,) = (row for row in rows if row.setting == reference)
    good = [row for row in rows if row.change >= -tolerance]
    fastest = max((row.speed_up for row in good), default=1.0)
    if fastest <= SAME_TIME:
        return stock
    return max((row for row in good if SAME_TIME * row.speed_up >= fastest), key=lambda row: (row.dice, row.speed_up))


def _by_region(measurements: Sequence[Measurement]) -> dict[str, float | None]:
    result: dict[str, float | None] = {}
    for region in measurements[0].dice:
        known = [m.dice[region] for m in measurements if m.dice[region] is not None]
        result[region] = float(np.mean(known)) if known else None
    return result


def _beats(speed_up: dict[Setting, float], dice: dict[Setting, float], one: Setting, other: Setting) -> bool:
    return speed_up[one] > speed_up[other] and dice[one] >= dice[other]
