"""What a page claims: few corrected comparisons, the rest exploratory, and what the number of cases allows."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from factorizer_nnunet.evaluation.metrics import metrics_for
from factorizer_nnunet.evaluation.scores import Scores
from factorizer_nnunet.pages.markup import embedded_json
from factorizer_nnunet.report.sections_models import compare, comparison_section, verdicts
from factorizer_nnunet.report.statistics import cases_needed, difference, smallest_p
from factorizer_nnunet.report.study import Group, Scored

METRICS, REGIONS = metrics_for((1.0, 2.0)), ("whole", "core")


def group_of(cases: int) -> Group:
    """Two models; the first is better in every case, region and metric."""
    names = tuple(f"c{number}" for number in range(cases))
    rng = np.random.default_rng(0)
    base = {(c, r, m.key): rng.uniform(0.4, 0.6) for c in names for r in REGIONS for m in METRICS}
    gain = {m.key: (0.1 if m.higher_is_better else -0.1) for m in METRICS}
    scored = []
    for place, factor in enumerate((0, 1)):
        table = {key: value + factor * gain[key[2]] * rng.uniform(0.5, 1) for key, value in base.items()}
        scores = Scores("none", METRICS, dict.fromkeys(REGIONS, (1,)), {}, names, {}, table)
        result: Any = SimpleNamespace(title=f"m{place}", model=None)
        scored.append(Scored(result, scores, place))
    return Group(tuple(scored), names, cases, {name: n for n, name in enumerate(names)})


def test_only_dice_and_hd95_are_corrected() -> None:
    found = compare(group_of(12))
    primary = [one for one in found if one.primary]
    assert {(one.region, one.metric.key) for one in primary} == {(r, m) for r in REGIONS for m in ("dice", "hd95")}
    for one in found:
        expected = one.found.p_value * 4 if one.primary else np.nan  # all p-values are equal, the smallest of 12 cases
        assert one.found.p_value == pytest.approx(smallest_p(12))
        assert one.found.p_holm == pytest.approx(expected, nan_ok=True)


def test_the_page_says_that_five_cases_cannot_show_a_difference() -> None:
    group = group_of(5)
    section = comparison_section(group, compare(group))
    assert "With 5 cases, the smallest p is 0.062, 0.250 after the correction for 4 tests" in section
    assert "that takes at least 8 cases" in section
    assert "too few cases for a test" in verdicts(group, compare(group))
    assert "Exploratory comparisons" in section and section.count("p, Holm") == 1
    enough = comparison_section(group_of(12), compare(group_of(12)))
    assert "With 12 cases" in enough and "no difference" not in enough


@pytest.mark.parametrize("cases", [3, 5, 6, 9])
def test_the_smallest_p_is_that_of_differences_of_one_sign(cases: int) -> None:
    changes = np.arange(1, cases + 1) / 10
    assert stats.wilcoxon(changes).pvalue == pytest.approx(smallest_p(cases))
    tied = difference(np.full(cases, 0.5), np.zeros(cases), higher_is_better=True)
    assert tied.p_value >= smallest_p(cases), "an approximation must not promise more than the test can show"


def test_the_cases_that_a_number_of_tests_needs() -> None:
    assert [cases_needed(tests) for tests in (1, 2, 4, 36)] == [6, 7, 8, 11]


@pytest.mark.parametrize("name", ["<!--<script>", "</script><script>alert(1)//", "a\u2028b", "&lt;", "\udcff", "]]>"])
def test_no_name_ends_a_script_element(name: str) -> None:
    text = embedded_json({"names": [name]})
    assert not re.search(r"[<>&\u2028\u2029]", text) and text.isascii()
    assert json.loads(text) == {"names": [name]}
