"""The uncertainty of a mean over cases, and whether two models differ on the same cases.

Intervals are by bootstrap over cases (Efron 1987, bias-corrected and accelerated); differences are tested by Wilcoxon's
signed-rank test, with Holm's correction (1979) over the few primary comparisons; the stability of a ranking is that of
Wiesenfarth et al. (Scientific Reports 11, 2021): how often a model keeps its rank when cases are resampled. The seed is
fixed, so that reports are reproducible.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats
from scipy.special import ndtr, ndtri

from factorizer_nnunet.evaluation.scores import CaseMean, mean_over_cases

RESAMPLES = 5000
LEVEL = 0.95
SEED = 20231
TIE = 1e-9  # smaller differences are rounding errors
_ALL_SIGNS = 13  # cases up to which SciPy, too, computes exact p-values if there are ties
ALPHA = 0.05  # p-values below it are called significant


@dataclass(frozen=True)
class Estimate(CaseMean):
    """A mean over cases with an interval, of 95 % unless said otherwise; NaN for few values or infinite ones."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A metric of one model minus that of another on the same cases.

    `wins` are cases in which the first is better; `p_value` is two-sided, NaN if no case has both; `p_holm` is
    corrected over the primary comparisons of a group, NaN for others.
    """

    estimate: Estimate
    wins: int
    ties: int
    losses: int
    p_value: float
    p_holm: float = math.nan


def estimate(values: np.ndarray, level: float = LEVEL) -> Estimate:
    """Mean with interval of values (cases,), without NaN; ``level`` is the interval's."""
    low, high = _interval(values[~np.isnan(values)], level)
    return Estimate(**vars(mean_over_cases(values)), low=low, high=high)


def difference(first: np.ndarray, second: np.ndarray, higher_is_better: bool) -> Difference:
    """Compare two models by their values (cases,) of the same cases in the same order; NaN if undefined."""
    change = first - second
    known = change[~np.isnan(change)]
    better = known if higher_is_better else -known
    return Difference(
        estimate=estimate(change),
        wins=int((better > TIE).sum()),
        ties=int((np.abs(better) <= TIE).sum()),
        losses=int((better < -TIE).sum()),
        p_value=_wilcoxon(known),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of a family of tests, in the given order; NaN are not tests and are kept."""
    tests = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(tests):
        largest = max(largest, min(1.0, (len(tests) - rank) * p))
        adjusted[place] = largest
    return adjusted


def smallest_p(cases: int) -> float:
    """The smallest two-sided p-value of Wilcoxon's test: all differences, none of them 0, have the same sign."""
    return float(min(1.0, 2.0 ** (1 - cases)))


def cases_needed(tests: int) -> int:
    """The fewest cases with which the smallest p-value, corrected for this many tests, is below `ALPHA`."""
    cases = 1
    while smallest_p(cases) * tests >= ALPHA:
        cases += 1
    return cases


def rank_shares(values: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """How often each model has each rank by its mean when cases are resampled; equal means share ranks.

    Args:
        values: (models, cases), without NaN.
        higher_is_better: whether the highest mean is first.

    Returns:
        Shares (models, ranks), first rank first; each row and each column sums to 1.
    """
    models, cases = values.shape
    means = np.round(_resamples(cases) @ values.T / cases, 12)
    order = -means if higher_is_better else means
    below = (order[:, None, :] < order[:, :, None]).sum(axis=2)  # models that are better
    equal = (order[:, None, :] == order[:, :, None]).sum(axis=2)
    ranks = np.arange(models)
    inside = (ranks >= below[..., None]) & (ranks < (below + equal)[..., None])
    return (inside / equal[..., None]).mean(axis=0)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    interval = stats.binomtest(successes, trials).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def _interval(known: np.ndarray, level: float) -> tuple[float, float]:
    if known.size < 2 or not np.isfinite(known).all():
        return math.nan, math.nan
    if np.ptp(known) <= TIE:
        return float(known.min()), float(known.max())
    means = _resamples(known.size) @ known / known.size
    below = ((means < known.mean()).mean() + (means <= known.mean()).mean()) / 2  # ties count half
    if not 0 < below < 1:
        return math.nan, math.nan
    # Efron (1987): bias from the fraction below the mean, acceleration from leaving out each case in turn.
    bias, apart = ndtri(below), known - known.mean()
    acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    z = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(means, ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


@lru_cache(maxsize=8)
def _resamples(cases: int) -> np.ndarray:
    """How often each case is drawn, (resamples, cases); the same for all metrics and models."""
    return np.random.default_rng(SEED).multinomial(cases, np.full(cases, 1 / cases), size=RESAMPLES).astype(float)


def _wilcoxon(known: np.ndarray) -> float:
    """Two-sided p-value; zeros are ranked, too (Pratt 1959), so that ties are not treated as missing cases."""
    known = np.where(np.abs(known) <= TIE, 0.0, known)
    if not known.size:
        return math.nan
    if not known.any():
        return 1.0
    if known.size <= _ALL_SIGNS:
        return _p_of_all_signs(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about few cases
        # With ties, SciPy may approximate, which with few cases gives values that no arrangement of signs has.
        return max(float(stats.wilcoxon(known, zero_method="pratt").pvalue), smallest_p(int(np.count_nonzero(known))))


def _p_of_all_signs(known: np.ndarray) -> float:
    """The same from the rank sums of all signs; SciPy takes seconds for them if there are ties."""
    ranks = stats.rankdata(np.abs(known))
    sums = np.zeros(1)
    for rank in ranks[known != 0]:
        sums = np.concatenate((sums, sums + rank))
    positive = ranks[known > 0].sum()  # multiples of 0.5, so that all sums are exact
    return min(1.0, 2 * float(min((sums <= positive).mean(), (sums >= positive).mean())))
