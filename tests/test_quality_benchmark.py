"""The numbers of the benchmark of --quality, on rows to check by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.calibration_cases import by_count
from benchmarks.quality import _chosen, auroc, measured, page


def row(condition: str, dice: float | None, estimate: float | None, doubt: float) -> dict:
    low, high = (None, None) if estimate is None else (estimate - 0.1, estimate + 0.1)
    return {
        "condition": condition,
        "case": "a",
        "region": "r",
        "dice": dice,
        "estimate": estimate,
        "low": low,
        "high": high,
        "doubt": doubt,
    }


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    assert auroc([0.9, 0.5, 0.1], [True, False, False]) == 1
    assert auroc([0.9, 0.5, 0.1, 0.5], [True, False, False, True]) == 0.875
    assert math.isnan(auroc([0.5], [False]))


def test_a_region_has_failed_far_below_the_median_of_the_clean_cases() -> None:
    rows = [row("clean", 0.9, 0.85, 0.1), row("clean", 0.95, 0.8, 0.3), row("clean", None, None, 0.0)]
    rows += [row("noise_3", 0.7, 0.6, 0.4), row("noise_3", 0.8, 0.8, 0.2), row("blur_3", 0.0, None, 1.0)]
    found = measured(rows)
    assert found["failed"] == 2 and found["regions_of_cases"] == 5 and found["auroc"] == 1
    assert math.isclose(found["mean_error_clean"], 0.1) and found["coverage_clean"] == 0.5
    assert found["conditions"]["noise_3"] == [pytest.approx(0.75), pytest.approx(0.3)]
    ready = {**found, "folds": 2, "fold_names": ["0", "1"], "calibration_cases": 20, "ece": {"r": [0.1, 0.02]}}
    text = " ".join(page({"x": {**ready, "model": "trainer", "machine": "m"}}).split())
    assert "| x | 2 | 20 cases | 5, 2 | 1.000 | 0.100 | 50% of 2 | – | r 0.100 → 0.020 |" in text
    priced = {**ready, "cost": {"without": [2.0, 4.0, 9.0], "with": [4.2, 5.0, 3.0]}}
    rough = {**priced, "coverage_clean": None, "mean_error_clean": None}
    rest = {"model": "trainer", "machine": "m"}
    assert "| 1.000 | too few cases | too few cases | 1.05 |" in " ".join(page({"x": {**rough, **rest}}).split())
    assert "trainer, fold 0, 1. m." in text and "| noise_3 | 0.750 | 0.300 |" in text


def test_images_of_an_earlier_choice_are_not_mixed_in(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for case in "abc":
        (images / f"{case}_0000.nii.gz").write_text(case)
    for _ in range(2):
        chosen = _chosen(images, tmp_path / "chosen", 2)
        assert sorted(path.name for path in chosen.iterdir()) == ["a_0000.nii.gz", "b_0000.nii.gz"]
    with pytest.raises(SystemExit, match="name another --work"):
        _chosen(images, tmp_path / "chosen", 1)


def test_subsets_of_cases_on_a_line_are_estimated_exactly() -> None:
    dice = np.linspace(0.3, 0.9, 19)
    found = by_count(np.stack([dice, dice], axis=1), dice)
    assert list(found) == [10, 12, 15]  # four others are left, at least
    for one in found.values():
        assert one["error"] < 0.01 < one["of_median"] and one["coverage"] == 1
