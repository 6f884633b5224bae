"""Planted label errors are found early: the study of benchmarks.label_errors, with fewer cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.mark.parametrize("with_probabilities", [True, False])
def test_most_planted_errors_come_first(with_probabilities: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])
    from benchmarks.label_errors import synthetic

    found = synthetic(40, 0, with_probabilities)
    assert min(found["lines"], found["cases"]) >= 0.8


def test_errors_are_what_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])
    from benchmarks.label_errors import plant

    labels, rng = np.zeros((20, 20, 8), np.uint8), np.random.default_rng(0)
    labels[2:8, 2:8, 2:6] = 1
    assert not plant(labels, "removed", rng).any()
    assert np.array_equal(plant(labels, "flipped", rng), labels[::-1])
    shifted = plant(labels, "shifted", rng)
    assert shifted is not None
    assert 0 < np.count_nonzero(shifted & labels) < np.count_nonzero(labels)
    assert plant(labels, "swapped", rng) is None  # there is one class
    labels[4:6, 4:6, 3:5] = 2
    assert np.array_equal(plant(labels, "swapped", rng), np.array([0, 2, 1])[labels])


def test_the_page_tells_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])
    from benchmarks.label_errors import page

    found = {"lines": 0.75, "cases": 1.0, "kind": 0.5, "removed": 1.0, "shifted": 0.5}
    known = {"model": "trainer", "dice": [0.5, 0.25], "cases": 40, "lines": 99, "planted": {"removed": 2, "shifted": 2}}
    row = " ".join(page({"x": {**known, "found": found}}).splitlines()[-1].split())
    assert row == "| x | trainer, 0.500, 0.250 | 40, 4 | 99 | 75% | 100% | 50% | 100% of 2 | 50% of 2 | – | – |"
