"""Temperatures are recovered, and calibration errors are those of the plain formulas on single voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from factorizer_nnunet.calibration.temperature import (
    LEAST_PROBABILITY,
    NUM_BINS,
    fit_temperature,
    logit_counts,
    reliability,
)


def voxels(temperature: float, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right once they are calibrated by this temperature, and truth."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal(count)
    truth = rng.random(count) < 1 / (1 + np.exp(-logits / temperature))
    return 1 / (1 + np.exp(-logits)), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_simulated_voxels_is_recovered(temperature: float) -> None:
    counts = logit_counts(*voxels(temperature, 200_000))
    assert fit_temperature(counts) == pytest.approx(temperature, rel=0.03)
    before, after = reliability([(counts, 1.0)]), reliability([(counts, temperature)])
    assert after.ece < 0.01
    if temperature != 1:
        assert before.ece > 4 * after.ece and before.brier > after.brier


def test_ece_and_brier_are_those_of_single_voxels() -> None:
    p, truth = voxels(2.0, 5000)
    found = reliability([(logit_counts(p, truth), 1.0)])
    kept = p >= LEAST_PROBABILITY
    p, truth = p[kept], truth[kept]
    place = np.minimum((p * NUM_BINS).astype(int), NUM_BINS - 1)
    bins = [place == number for number in range(NUM_BINS)]
    ece = sum(one.sum() / len(p) * abs(p[one].mean() - truth[one].mean()) for one in bins if one.any())
    assert found.ece == pytest.approx(ece, abs=0.01)
    assert found.brier == pytest.approx(np.mean((p - truth) ** 2), abs=0.002)
    assert sum(found.counts) == len(p)


def test_sure_background_does_not_count() -> None:
    p = np.array([1e-6, 0.009, 0.5, 0.999999, 1.0, 0.0])
    assert logit_counts(p, np.array([True, False, True, True, True, True])).sum() == 3


def test_without_voxels_of_both_kinds_nothing_is_calibrated() -> None:
    counts = logit_counts(np.array([0.9, 0.8]), np.array([True, True]))
    assert fit_temperature(counts) == 1 and reliability([(counts, 1.0)]).ece == pytest.approx(0.15, abs=0.01)
    assert math.isnan(reliability([(np.zeros_like(counts), 1.0)]).ece)
