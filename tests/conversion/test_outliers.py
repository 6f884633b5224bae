"""Outliers: the score against another implementation, and file mistakes that must be found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from report_example import brats, grid
from scipy.stats import median_abs_deviation

from factorizer_nnunet.dataset_conversion.check import Examined, ImageFacts
from factorizer_nnunet.dataset_conversion.report import total_mm3
from factorizer_nnunet.dataset_conversion.report.outliers import MIN_CASES, find_outliers, robust_z

CHANNELS = ("T1", "T1ce", "T2", "FLAIR")


def examined(cases: int, **first: object) -> list[Examined]:
    """Cases with equal images, except for the first channel of the first case."""
    kept = list(brats(cases, unlabelled=0).survey.kept)
    facts = ImageFacts(grid(), 10.0, 900.0, "copy")
    kept = [replace(e, images=(facts,) * 4) for e in kept]
    kept[0] = replace(kept[0], images=(replace(facts, **first), facts, facts, facts))
    return kept


def texts(kept: list[Examined], volumes: dict[str, float] | None = None) -> dict[str, list[str]]:
    found = find_outliers(kept, CHANNELS, volumes or {})
    return {case: [one.text for one in marks] for case, marks in found.items()}


def test_score_is_the_distance_in_scaled_median_deviations() -> None:
    values = np.random.default_rng(0).standard_t(3, 101)
    expected = (values - np.median(values)) / median_abs_deviation(values, scale="normal")
    np.testing.assert_allclose(robust_z(values.tolist(), 1e-9), expected, rtol=1e-4)


def test_score_of_equal_values_is_zero_and_of_one_other_value_large() -> None:
    assert robust_z([5.0] * 9, 0.01) == [0.0] * 9
    scores = robust_z([5.0] * 9 + [7.0], 0.01)
    assert scores[:9] == [0.0] * 9
    assert scores[9] == pytest.approx(10 / 1.2533)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"grid": grid((240, 240, 40))}, "size 240 × 240 × 40, usually 240 × 240 × 155"),
        ({"grid": grid(spacing=(1.0, 1.0, 5.0))}, "spacing 1 × 1 × 5 mm, usually 1 × 1 × 1 mm"),
        ({"high": 90_000.0}, "T1 intensities 10 to 90000, usually 10 to 900"),
        ({"low": -1024.0, "high": -134.0}, "T1 intensities -1024 to -134, usually 10 to 900"),
    ],
)
def test_only_the_unusual_file_is_marked(facts: dict[str, object], text: str) -> None:
    kept = examined(MIN_CASES, **facts)
    assert texts(kept) == {kept[0].case.name: [text]}


def test_rounding_differences_are_not_outliers() -> None:
    assert texts(examined(20, grid=grid((240, 240, 154), (1.0, 1.0, 1.00001)), high=905.0, low=12.0)) == {}


def test_few_cases_are_not_compared() -> None:
    assert texts(examined(MIN_CASES - 1, grid=grid((240, 240, 4)))) == {}


@pytest.mark.parametrize("factor", [1 / 1000, 1000])
def test_large_and_small_volumes_are_marked(factor: float) -> None:
    kept = examined(20)
    scheme = brats(1).survey.scheme
    volumes = {e.case.name: total_mm3(scheme, e) for e in kept}
    odd = kept[7].case.name
    volumes[odd] *= factor
    assert list(texts(kept, volumes)) == [odd]


def test_empty_labels_are_neither_marked_nor_compared() -> None:
    """More than half of the labels are empty: only the others are compared."""
    kept = examined(30)
    volumes = {e.case.name: 0.0 if number < 16 else 1000.0 + number for number, e in enumerate(kept)}
    volumes[kept[29].case.name] = 300_000.0
    assert texts(kept, volumes) == {kept[29].case.name: ["volume 300 ml, usually 1.02 ml"]}


def test_a_channel_on_its_own_grid_is_compared_with_its_peers() -> None:
    kept = examined(10)
    own = ImageFacts(grid((512, 512, 29), (0.45, 0.45, 6.0)), 10.0, 900.0, "resample")
    kept = [replace(e, images=(*e.images[:3], own)) for e in kept]
    kept[3] = replace(kept[3], images=(*kept[3].images[:3], replace(own, grid=grid((256, 256, 29), (0.45, 0.45, 6.0)))))
    assert texts(kept) == {kept[3].case.name: ["FLAIR size 256 × 256 × 29, usually 512 × 512 × 29"]}
