"""Estimated Dice: exact where it must be, pulled where cases say little, and intervals that cover what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from factorizer_nnunet.calibration.dice_model import MIN_CASES, DiceModel, fit_dice


def simulated(count: int, rng: np.random.Generator, spread: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Agreement and confidence of cases, and their Dice: lower than both, and more scattered where it is low."""
    agreement = np.clip(0.85 + spread * rng.standard_normal(count), 0.05, 0.99)
    confidence = np.clip(agreement + 0.03 * rng.standard_normal(count), 0, 1)
    noise = rng.standard_normal(count) * (0.01 + 0.3 * (1 - agreement))
    return np.stack([agreement, confidence], 1), np.clip(0.9 * agreement - 0.02 + noise, 0, 1)


def test_a_line_is_found() -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(0.2, 0.8, (400, 1))
    model, left_out = fit_dice(features, 0.1 + 0.8 * features[:, 0])
    assert model.slopes[0] == pytest.approx(0.8, abs=0.01) and model.offset == pytest.approx(0.1, abs=0.01)
    np.testing.assert_allclose(left_out, 0.1 + 0.8 * features[:, 0], atol=0.01)


def test_where_all_cases_are_alike_the_dice_still_falls_with_agreement() -> None:
    rng = np.random.default_rng(1)
    features = 0.9 + 0.005 * rng.standard_normal((30, 2))
    model, _ = fit_dice(features, 0.85 + 0.01 * rng.standard_normal(30))
    assert model.estimate((0.9, 0.9)).dice == pytest.approx(0.85, abs=0.01)
    assert model.estimate((0.3, 0.3)).dice == pytest.approx(0.25, abs=0.03)


def test_slopes_are_never_negative() -> None:
    rng = np.random.default_rng(2)
    features = rng.uniform(0, 1, (200, 2))
    model, _ = fit_dice(features, 0.9 * features[:, 0] + 0.1 * (1 - features[:, 1]))
    assert min(model.slopes) >= 0 and model.slopes[1] == 0


def test_a_case_is_estimated_without_itself() -> None:
    features, dice = simulated(40, np.random.default_rng(3))
    model, left_out = fit_dice(features, dice)
    others = np.arange(40) != 7
    expected = fit_dice(features[others], dice[others])[0].estimate(tuple(features[7])).dice
    assert left_out[7] == pytest.approx(expected) and model.num_cases == 40


@pytest.mark.parametrize("count", [MIN_CASES, 50, 150])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_intervals_cover_new_cases_as_often_as_stated(count: int, coverage: float) -> None:
    rng = np.random.default_rng(count)
    inside = []
    for _ in range(40):
        model, _ = fit_dice(*simulated(count, rng), coverage)
        features, dice = simulated(100, rng)
        estimates = [model.estimate(tuple(one)) for one in features]
        inside += [one.low <= value <= one.high for one, value in zip(estimates, dice, strict=True)]
    assert coverage - 0.03 < np.mean(inside) < coverage + 0.06


def test_too_few_cases_for_the_coverage_are_refused() -> None:
    features, dice = simulated(8, np.random.default_rng(0))
    with pytest.raises(ValueError, match="8 cases are too few for intervals of 90%"):
        fit_dice(features, dice)


def test_estimates_and_intervals_stay_between_0_and_1() -> None:
    model = DiceModel((1.0,), 0.2, 3.0, 30)
    assert model.estimate((0.95,)).dice == 1 and model.estimate((0.95,)).high == 1
    assert model.estimate((0.1,)).low == 0
