"""``python -m benchmarks.component_auc``: how maps are chosen and scored."""

from __future__ import annotations

import pytest

from benchmarks.component_auc import mean_aucs, page


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
