"""Intervals, tests and ranks against independent computations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from factorizer_nnunet.report.statistics import difference, estimate, holm, rank_shares, wilson_interval


def test_the_interval_of_normal_values_is_about_students() -> None:
    values = np.random.default_rng(3).normal(0.8, 0.1, 200)
    found = estimate(values)
    low, high = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == (pytest.approx(low, abs=0.002), pytest.approx(high, abs=0.002))


@pytest.mark.parametrize("cases", [40, 100, 300])
def test_the_interval_is_scipys(cases: int) -> None:
    """Skewed values, so that bias and acceleration matter; the resamples differ, which moves the ends a little."""
    values = np.random.default_rng(cases).beta(6, 1, cases)
    expected = stats.bootstrap((values,), np.mean, n_resamples=9999, random_state=np.random.default_rng(0))
    width = expected.confidence_interval.high - expected.confidence_interval.low
    found = estimate(values)
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.08 * width)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.08 * width)


def test_the_interval_covers_the_mean_of_a_skewed_distribution() -> None:
    rng = np.random.default_rng(0)
    found = [estimate(rng.beta(8, 1.5, 40)) for _ in range(100)]
    covered = sum(one.low <= 8 / 9.5 <= one.high for one in found)
    assert 86 <= covered <= 100  # 95 expected, standard deviation 2.2


def test_undefined_cases_are_left_out_and_counted() -> None:
    found = estimate(np.array([0.5, math.nan, 0.7, math.nan]))
    assert found.mean == pytest.approx(0.6)
    assert found.count == "2 of 4"
    none = estimate(np.full(3, math.nan))
    assert math.isnan(none.mean) and none.count == "0 of 3"


def test_equal_single_and_infinite_values_have_the_interval_that_they_can_have() -> None:
    assert (estimate(np.full(9, 0.25)).low, estimate(np.full(9, 0.25)).high) == (0.25, 0.25)
    assert math.isnan(estimate(np.array([0.3])).low)
    far = estimate(np.array([1.0, math.inf, 2.0]))
    assert far.mean == math.inf and math.isnan(far.low) and far.median == 2


def test_the_p_value_is_that_of_all_signs() -> None:
    """Wilcoxon's test counts how many of the 2⁹ ways to choose signs give a rank sum as far out."""
    change = np.array([0.31, -0.12, 0.44, 0.05, 0.27, -0.02, 0.61, 0.18, 0.09])
    ranks = stats.rankdata(np.abs(change))
    seen = min(ranks[change > 0].sum(), ranks[change < 0].sum())
    sums = [
        sum(r for r, sign in zip(ranks, signs, strict=True) if sign) for signs in itertools.product((0, 1), repeat=9)
    ]
    expected = 2 * sum(one <= seen for one in sums) / 2**9
    assert difference(change, np.zeros(9), True).p_value == pytest.approx(expected)


def test_wins_follow_the_direction_of_the_metric() -> None:
    first, second = np.array([1.0, 2.0, 3.0, 4.0, math.nan]), np.array([1.0, 1.0, 1.0, 5.0, 1.0])
    found = difference(first, second, higher_is_better=True)
    assert (found.wins, found.ties, found.losses, found.estimate.count) == (2, 1, 1, "4 of 5")
    assert difference(first, second, higher_is_better=False).wins == 1
    assert difference(first, first, higher_is_better=True).p_value == 1
    assert math.isnan(difference(first[4:], second[4:], True).p_value)


def test_holm_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling."""
    assert holm([0.01, 0.04, math.nan, 0.03, 0.005])[:2] == [pytest.approx(0.03), pytest.approx(0.06)]
    assert holm([0.01, 0.04, math.nan, 0.03, 0.005])[3:] == [pytest.approx(0.06), pytest.approx(0.02)]
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_lies_between_the_p_value_and_bonferroni(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1, p * len(p_values)) + 1e-12


def test_a_model_that_is_better_in_every_case_is_always_first() -> None:
    base = np.random.default_rng(1).random(20)
    shares = rank_shares(np.stack([base, base + 0.1, base - 0.1]), higher_is_better=True)
    np.testing.assert_array_equal(shares, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(rank_shares(np.stack([base, base + 0.1]), higher_is_better=False), np.eye(2))


def test_equal_models_share_their_ranks() -> None:
    base = np.random.default_rng(1).random(20)
    np.testing.assert_allclose(
        rank_shares(np.stack([base, base, base - 1]), True), [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]
    )


def test_the_share_of_first_ranks_is_the_chance_that_the_mean_difference_is_positive() -> None:
    rng = np.random.default_rng(5)
    change = rng.normal(0.01, 0.05, 60)
    share = rank_shares(np.stack([change, np.zeros(60)]), True)[0, 0]
    chance = stats.norm.cdf(change.mean() / (change.std() / math.sqrt(60)))
    assert share == pytest.approx(chance, abs=0.03)


@given(st.integers(0, 40), st.integers(1, 40))
def test_wilsons_interval_by_its_formula(found: int, more: int) -> None:
    n, z = found + more, 1.959964
    p = found / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = wilson_interval(found, n)
    assert low == pytest.approx(max(centre - half, 0), abs=1e-6) and high == pytest.approx(centre + half, abs=1e-6)
