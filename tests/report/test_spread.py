"""Repeated trainings on the page: their spread, and differences that are not larger."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from results_example import add_model, write_study

from factorizer_nnunet.evaluation.metrics import metrics_for
from factorizer_nnunet.evaluation.scores import Scores
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.report import Sources, write_report
from factorizer_nnunet.report.repeats import first_trainings, repeats_of, repeats_section, spread
from factorizer_nnunet.report.sections_models import compare, comparison_section, verdicts
from factorizer_nnunet.report.study import Group, Scored

METRICS = metrics_for((1.0,))
CASES = tuple(f"c{number}" for number in range(12))


def _group(*models: tuple[str, float]) -> Group:
    """Models by trainer, with a Dice."""
    scored = []
    for place, (trainer, dice) in enumerate(models):
        noise = np.random.default_rng(place).normal(0, 1e-4, len(CASES))  # equal differences take SciPy minutes to test
        noise -= noise.mean()
        table = {(c, "lesion", m.key): dice + one for c, one in zip(CASES, noise, strict=True) for m in METRICS}
        scores = Scores("none", METRICS, {"lesion": (1,)}, {}, CASES, {}, table)
        trainer, _, below = trainer.partition("/")
        folder = ModelFolder(Path(f"{trainer}__nnUNetPlans__3d_fullres"))
        result: Any = SimpleNamespace(title=trainer, model=folder, kind="cross-validation", folder=folder.path / below)
        scored.append(Scored(result, scores, place))
    return Group(tuple(scored), CASES, len(CASES), {name: n for n, name in enumerate(CASES)})


def test_a_difference_below_the_spread_is_marked() -> None:
    group = _group(("A", 0.70), ("B", 0.74), ("A_repeat2", 0.75), ("B_repeat2", 0.74), ("C", 0.80))
    dice = METRICS[0]
    assert spread(group, group.scored[0], "lesion", dice) == pytest.approx(0.05)
    compared = {(one.second.title, one.first.title): one for one in compare(group) if one.metric == dice}
    assert compared.keys() == {("A", "B"), ("A", "C"), ("B", "C")}, "first trainings only"
    assert {pair: one.may_be_chance for pair, one in compared.items()} == {
        ("A", "B"): True,
        ("A", "C"): False,
        ("B", "C"): False,
    }
    assert "+0.040 ≈" in comparison_section(group, compare(group))
    assert verdicts(group, compare(group)).count("differ by up to 0.050: this difference may be chance") == 1
    section = repeats_section(group)
    assert section.count("<tr><td>A</td>") == 2 and "<tr><td>C</td>" not in section  # Dice and HD95


def test_trainings_are_named_by_their_numbers() -> None:
    section = repeats_section(_group(("A", 0.70), ("A_repeat3", 0.75), ("B", 0.70), ("B_repeat2", 0.71)))
    heads = [f'<th scope="col">training {number}</th>' for number in (1, 2, 3)]
    assert all(head in section for head in heads) and "training 4" not in section
    (dice_of_a, *_) = (row for row in section.split("<tr>") if row.startswith("<td>A</td>"))
    assert dice_of_a.index("0.700") < dice_of_a.index("<td></td>") < dice_of_a.index("0.750")


def test_postprocessed_predictions_are_not_another_training() -> None:
    group = _group(("A/folds", 0.70), ("A/folds/postprocessed", 0.75), ("A_repeat2/folds", 0.71))
    assert [one.result.title for one in first_trainings(group)] == ["A", "A"]
    assert [round(spread(group, one, "lesion", METRICS[0]), 3) for one in group.scored[:1]] == [0.01]
    assert repeats_of(group, group.scored[1]) == [group.scored[1]]


def test_without_repeats_nothing_is_marked() -> None:
    group = _group(("A", 0.70), ("B", 0.71))
    assert not any(one.may_be_chance for one in compare(group)) and repeats_section(group) == ""


def test_a_report_of_real_folders_has_the_section(tmp_path: Path) -> None:
    study = write_study(tmp_path, 5)
    models = [add_model(study, f"nnUNetTrainer{end}", wear) for end, wear in (("", 0.1), ("_repeat2", 0.3))]
    page = tmp_path / "report.html"
    write_report(models, page, sources=Sources(environment=study.environment), viewer_cases=0)
    text = page.read_text()
    assert "Repeated trainings" in text and "training 2" in text and 'id="comparison"' not in text
