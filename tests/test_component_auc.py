"""``python -m benchmarks.component_auc``: how maps are chosen and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.component_auc import main, mean_aucs, page
from benchmarks.nnunet_commands import ROOT


def test_means_are_over_the_cases_that_have_the_class() -> None:
    cases = [{"a": {"core": 0.5, "rim": None}}, {"a": {"core": 0.75, "rim": None}}]
    assert mean_aucs(cases) == {"a": {"core": 0.625, "rim": None}}


@pytest.mark.parametrize("avoids", [False, True])
def test_the_best_map_is_chosen_on_training_cases_and_scored_on_the_others(avoids: bool) -> None:
    chosen = {"good": {"core": 0.05 if avoids else 0.95}, "lucky": {"core": 0.6}}
    scored = {"good": {"core": 0.2 if avoids else 0.8}, "lucky": {"core": 0.99}}
    own = {"chosen_on": {"cases": ["a", "b"], "auc": chosen}, "scored_on": {"cases": ["c"], "auc": scored}}
    networks = {"default": own, "unet": own}
    results = {"brats_2mm/3d_fullres": {"networks": networks, "machine": "m", "versions": {"torch": "2"}}}
    text = page(results)
    (row,) = [line for line in text.splitlines() if "Factorizer, default" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["Factorizer, default: components of all stages", "2", "good" + " (avoids it)" * avoids, "0.800"]
    assert "nnU-Net's U-Net: channels of all stages" in text and "chosen on 2 training cases" in text


def test_the_committed_page_is_that_of_the_committed_results() -> None:
    file = ROOT / "docs" / "measured" / "component_auc.json"
    results = json.loads(file.read_text(encoding="utf-8"))
    assert file.with_suffix(".md").read_text(encoding="utf-8") == page(results)


def test_damaged_results_are_reported_before_anything_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text("{")
    with pytest.raises(SystemExit, match=r"error: .*r\.json.*JSON.*Restore it from git"):
        main(["brats_2mm", "--root", str(tmp_path / "none"), "--results", str(file)])
    assert not (tmp_path / "none").exists()
