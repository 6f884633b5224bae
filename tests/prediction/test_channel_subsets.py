"""The benchmark of all subsets of channels, on untrained models."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny_models import FACTORIZER, write_model
from validation_example import VALIDATED, write_validation

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


def test_every_subset_is_predicted_and_continued(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import channel_subsets

    drops, ordinary = write_model(root, f"{FACTORIZER}_channeldrop"), write_model(root, FACTORIZER)
    write_validation(root)
    docs = root / "docs"
    monkeypatch.setattr(sys, "argv", ["channel_subsets", str(drops), str(ordinary), "-f", "0", "--docs", str(docs)])
    channel_subsets.main()
    results = json.loads((docs / "channel_subsets.json").read_text())
    for model in (drops, ordinary):
        assert list(results[model.name]) == ["T1 + T2", "T1", "T2"]
        assert all(set(by_case) == set(VALIDATED) for by_case in results[model.name].values())
    # Equal weights: only what they see without a channel differs.
    assert results[drops.name]["T1 + T2"] == results[ordinary.name]["T1 + T2"]
    assert results[drops.name]["T1"] != results[ordinary.name]["T1"]
    assert "| mean without one channel |" in (page := (docs / "channel_subsets.md").read_text())

    monkeypatch.setattr(channel_subsets, "dice_of", lambda *_: pytest.fail("predicted again"))
    channel_subsets.main()
    assert (docs / "channel_subsets.md").read_text() == page


def test_the_means_of_a_table() -> None:
    from benchmarks.channel_subsets import page, subsets

    assert subsets(["a", "b", "c"])["a + c"] == {1}
    assert list(subsets(["a", "b", "c"]))[0] == "a + b + c" and len(subsets(["a", "b", "c", "d"])) == 15
    dice = {"x": {"core": 0.5, "rim": 1.0}, "y": {"core": None, "rim": 0.0}}
    by_subset = dict.fromkeys(subsets(["a", "b"]), dice)
    text = page({"model": by_subset}, 2)
    assert "| a + b                    |  50.0 |" in text
    assert "2 cases" in text
