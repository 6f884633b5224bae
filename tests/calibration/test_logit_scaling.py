"""Temperatures and offsets are recovered, and calibration errors are those of the plain formulas on single voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from factorizer_nnunet.calibration.fit_scaling import fit_scaling
from factorizer_nnunet.calibration.logit_scaling import (
    LEAST_PROBABILITY,
    NUM_BINS,
    LogitScaling,
    logit_counts,
    reliability,
)

AS_IT_IS = LogitScaling()


def voxels(scaling: LogitScaling, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right once they are calibrated so, and truth."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal(count)
    truth = rng.random(count) < scaling.probabilities(logits)
    return 1 / (1 + np.exp(-logits)), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("offset", [-1.0, 0.0, 0.7])
def test_what_calibrates_simulated_voxels_is_recovered(temperature: float, offset: float) -> None:
    true = LogitScaling(temperature, offset)
    counts = logit_counts(*voxels(true, 200_000))
    found = fit_scaling(counts)
    assert found.temperature == pytest.approx(temperature, rel=0.03)
    assert found.offset == pytest.approx(offset, abs=0.04)
    before, after = reliability([(counts, AS_IT_IS)]), reliability([(counts, found)])
    assert after.ece < 0.01
    if true != AS_IT_IS:
        assert before.ece > 4 * after.ece and before.brier > after.brier


def test_ece_and_brier_are_those_of_single_voxels() -> None:
    p, truth = voxels(LogitScaling(2.0, 0.5), 5000)
    found = reliability([(logit_counts(p, truth), AS_IT_IS)])
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
    assert fit_scaling(counts) == AS_IT_IS and reliability([(counts, AS_IT_IS)]).ece == pytest.approx(0.15, abs=0.01)
    assert math.isnan(reliability([(np.zeros_like(counts), AS_IT_IS)]).ece)


def test_what_is_perfectly_separated_stays_within_bounds() -> None:
    counts = logit_counts(np.array([0.2, 0.3, 0.8, 0.9]), np.array([False, False, True, True]))
    found = fit_scaling(counts)
    assert found.temperature == pytest.approx(0.1) and abs(found.offset) <= 5


def test_probabilities_keep_their_type_and_shape() -> None:
    logits = np.zeros((2, 3), np.float32)
    found = LogitScaling(2.0, math.log(3)).probabilities(logits)
    assert found.dtype == np.float32 and found == pytest.approx(np.full((2, 3), 0.75))
