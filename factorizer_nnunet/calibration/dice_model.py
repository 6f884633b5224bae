"""From the agreement of passes to the Dice of a case, with intervals of a stated coverage.

The estimate is a line through the out-of-fold cases of a region: the mean of the features, plus an offset, where the
cases do not say otherwise. Cases of a good model hardly differ, and a free line through them would be flat, which is
wrong for the cases that matter; so slopes are pulled towards equal shares of 1.

Intervals are conformal: each out-of-fold case is estimated from all others, and its error, divided by how far the
estimate is from 1, is one of n equally likely ones; their quantile of rank (n + 1) · coverage bounds that of a new case
(Vovk, Gammerman and Shafer, Algorithmic learning in a random world, 2005; left out one by one as in Barber et al.,
Predictive inference with the jackknife+, 2021, without its correction for unstable fits, which a line does not need).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Of a region, to estimate its Dice: from so few the estimates were little worse than from 30, and the intervals held
# (docs/measured/calibration_cases.md); intervals of 90 % exist from 9 on.
MIN_CASES = 10
COVERAGE = 0.9
# Pull towards equal slopes: as ten cases whose features vary by 0.1 would.
_PULL = 10 * 0.1**2
_LEAST_SCALE = 0.02  # of errors, for estimates of 1


@dataclass(frozen=True)
class DiceEstimate:
    """An estimated Dice with its interval, all from 0 to 1."""

    dice: float
    low: float
    high: float


@dataclass(frozen=True)
class DiceModel:
    """The line of a region.

    Attributes:
        slopes: of each feature.
        offset: Dice where all features are 0.
        radius: of intervals, in units of their scale.
        num_cases: that it was fitted to.
    """

    slopes: tuple[float, ...]
    offset: float
    radius: float
    num_cases: int

    def estimate(self, features: Sequence[float]) -> DiceEstimate:
        """The Dice of a case with these features, in the order of the slopes."""
        dice = float(_predicted(np.array(self.slopes), self.offset, np.array([features]))[0])
        reach = float(self.reach(np.array(dice)))
        return DiceEstimate(dice, max(0.0, dice - reach), min(1.0, dice + reach))

    def reach(self, estimates: np.ndarray) -> np.ndarray:
        """How far the intervals of estimates reach to each side."""
        return self.radius * _scale(estimates)


def fit_dice(features: np.ndarray, dice: np.ndarray, coverage: float = COVERAGE) -> tuple[DiceModel, np.ndarray]:
    """Fit the line of a region.

    Args:
        features: (cases, features), each an estimate of the Dice by itself.
        dice: (cases,).
        coverage: of intervals.

    Returns:
        The line, and the estimate of each case by a line that was fitted to the others, (cases,).

    Raises:
        ValueError: there are too few cases for intervals of this coverage.
    """
    rank = math.ceil((len(dice) + 1) * coverage)
    if rank > len(dice):
        raise ValueError(f"{len(dice)} cases are too few for intervals of {coverage:.0%}")
    left_out = np.empty(len(dice))
    for case in range(len(dice)):
        others = np.arange(len(dice)) != case
        left_out[case] = _predicted(*_line(features[others], dice[others]), features[case : case + 1])[0]
    errors = np.sort(np.abs(dice - left_out) / _scale(left_out))
    slopes, offset = _line(features, dice)
    return DiceModel(tuple(map(float, slopes)), float(offset), float(errors[rank - 1]), len(dice)), left_out


def _line(features: np.ndarray, dice: np.ndarray) -> tuple[np.ndarray, float]:
    """Slopes, none negative, and offset: least squares with a pull towards equal slopes with the sum 1."""
    count = features.shape[1]
    slopes, free = np.zeros(count), np.ones(count, bool)
    x, y = features - features.mean(axis=0), dice - dice.mean()
    while free.any():
        own, prior = x[:, free], np.full(int(free.sum()), 1 / count)
        change = np.linalg.solve(own.T @ own + _PULL * np.eye(own.shape[1]), own.T @ (y - own @ prior))
        slopes[free] = prior + change
        if (slopes >= 0).all():
            break
        free &= slopes > 0
        slopes[~free] = 0
    return slopes, float(dice.mean() - features.mean(axis=0) @ slopes)


def _predicted(slopes: np.ndarray, offset: float, features: np.ndarray) -> np.ndarray:
    return np.clip(features @ slopes + offset, 0, 1)


def _scale(estimates: np.ndarray) -> np.ndarray:
    """What errors of estimates are proportional to: cases that are segmented well vary less."""
    return _LEAST_SCALE + 1 - estimates
