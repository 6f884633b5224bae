"""Figures: scales, swarms, bins and limits against independent numbers; every SVG is well-formed."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorizer_nnunet.evaluation.metrics import Metric
from factorizer_nnunet.evaluation.scores import Lesion
from factorizer_nnunet.report.charts.agreement import Volumes, agreement, agreement_svg
from factorizer_nnunet.report.charts.axes import Scale, log_scale_for, scale_for
from factorizer_nnunet.report.charts.comparison import differences_svg, ranks_svg
from factorizer_nnunet.report.charts.curves import Line, curves_svg
from factorizer_nnunet.report.charts.detection import bins_of, detection_svg
from factorizer_nnunet.report.charts.strips import Strip, beeswarm, strip_svg
from factorizer_nnunet.report.statistics import difference

DICE = Metric("dice", "Dice", "", True)
HD95 = Metric("hd95", "HD95", "mm", False, 2)


def elements(svg: str, tag: str, kind: str = "") -> list[ElementTree.Element]:
    """All elements of a kind in an SVG, which must be well-formed and have a description."""
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img" and root.get("tabindex") == "0" and root.get("aria-label")
    return [one for one in root.iter(tag) if kind in (one.get("class") or "").split() or not kind]


@given(st.lists(st.floats(-1e4, 1e4), max_size=20))
def test_a_scale_shows_all_values_and_its_ticks_are_inside(values: list[float]) -> None:
    scale = scale_for(values, 100, 10, include=(0.0,))
    assert all(10 - 1e-6 <= scale(value) <= 100 + 1e-6 for value in (*values, 0))
    slack = 1e-6 * (scale.high - scale.low)
    assert scale.low <= min([*values, 0]) + slack and scale.high >= max([*values, 0]) - slack
    ticks = scale.ticks()
    assert len(ticks) >= 2 and all(10 - 1e-6 <= scale(tick) <= 100 + 1e-6 for tick in ticks)


@given(st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=20))
def test_a_logarithmic_scale_shows_all_values(values: list[float]) -> None:
    scale = log_scale_for(values, 0, 100)
    assert scale.low <= min(values) * (1 + 1e-6) and scale.high >= max(values) * (1 - 1e-6)
    assert scale.high / scale.low <= 1e3 * max(values) / min(values)
    assert scale.ticks() and all(-1e-6 <= scale(tick) <= 100 + 1e-6 for tick in scale.ticks())


def test_scales_by_eye() -> None:
    scale = scale_for([0.42, 0.97], 0, 100, include=(1.0,), within=(0.0, 1.0))
    assert (scale.low, scale.high) == (0.4, 1.0)
    assert scale(math.inf) == 100
    decades = log_scale_for([1, 100], 0, 100)
    assert decades(10) == pytest.approx(50)


@given(st.lists(st.floats(0, 200), max_size=60))
def test_dots_of_a_swarm_do_not_hide_each_other_if_there_is_room(heights: list[float]) -> None:
    aside = beeswarm(heights, half_width=400)
    for (x, y), (a, b) in combinations(zip(aside, heights, strict=True), 2):
        assert math.hypot(x - a, y - b) >= 4.4
    assert all(abs(x) <= 20 for x in beeswarm(heights, half_width=20))


def test_every_case_is_a_dot_unless_undefined() -> None:
    values = np.array([0.9, 0.2, math.nan, 0.7])
    svg = strip_svg(DICE, {"a & b": [Strip("<one>", 0, values), Strip("two", 1, values[::-1])]}, [4, 5, 6, 7])
    dots = elements(svg, "circle")
    assert [dot.get("data-c") for dot in dots if "m0" in dot.get("class")] == ["4", "5", "7"]
    assert dots[0].get("data-t") == "<one>, a & b: 0.900"
    heights = [float(dot.get("cy")) for dot in dots[:3]]
    assert heights[0] < heights[2] < heights[1]
    median = next(line for line in elements(svg, "line", "median"))
    assert float(median.get("y1")) == pytest.approx(heights[2], abs=0.1)


def test_infinite_distances_are_at_the_edge_and_shown() -> None:
    svg = strip_svg(HD95, {"a": [Strip("one", 0, np.array([1.0, 2.0, math.inf]))]}, [0, 1, 2])
    assert [dot.get("data-t") for dot in elements(svg, "circle")][-1] == "one, a: ∞ mm"
    assert "nan" not in svg
    assert "undefined" in strip_svg(HD95, {"a": [Strip("one", 0, np.array([math.nan]))]}, [0])


def test_limits_of_agreement_by_hand() -> None:
    """Differences 1, 3, 2: mean 2, standard deviation 1."""
    volumes = Volumes(np.array([10.0, 20, 30]), np.array([11.0, 23, 32]), [0, 1, 2])
    found = agreement(volumes)
    assert (found.bias, found.low, found.high) == (2, pytest.approx(0.04), pytest.approx(3.96))
    svg = agreement_svg("m", "r", 0, volumes, (0, 4), (10, 31))
    assert "mean difference +2.0 ml, limits of agreement +0.0 to +4.0 ml, 3 cases" in svg
    xs = [float(dot.get("cx")) for dot in elements(svg, "circle")]
    assert xs == sorted(xs)


def lesions(sizes: list[float], found: list[bool]) -> list[Lesion]:
    return [Lesion(f"c{n}", "r", size, is_found) for n, (size, is_found) in enumerate(zip(sizes, found, strict=True))]


@given(st.lists(st.tuples(st.floats(0.001, 100), st.booleans()), min_size=1, max_size=80))
def test_bins_contain_every_lesion_once_in_order(pairs: list[tuple[float, bool]]) -> None:
    bins = bins_of(lesions([size for size, _ in pairs], [is_found for _, is_found in pairs]))
    assert sum(one.lesions for one in bins) == len(pairs)
    assert sum(one.found for one in bins) == sum(is_found for _, is_found in pairs)
    assert all(one.high <= other.low for one, other in pairwise(bins))
    assert max(one.lesions for one in bins) - min(one.lesions for one in bins) <= 1


def test_missed_lesions_are_ticks_of_a_separate_kind() -> None:
    svg = detection_svg("r", {"m": (0, lesions([0.1, 1, 10], [False, True, True]))}, {"c0": 0, "c1": 1, "c2": 2})
    assert [tick.get("data-t") for tick in elements(svg, "rect", "missed")] == ["m, r: 0.1 ml, missed"]
    assert len(elements(svg, "rect", "detected")) == 2


def test_curves_of_unequal_length_and_with_gaps() -> None:
    values = np.array([0.1, math.nan, 0.3, 0.4])
    lines = [Line("m", 0, "0", np.arange(4), values), Line("m", 0, "1", np.arange(2), values[:2])]
    paths = elements(curves_svg("loss", lines), "path", "fold")
    assert paths[0].get("d").count("M") == 2 and paths[0].get("d").count("L") == 1
    long = Line("m", 0, "0", np.arange(1000), np.linspace(0, 1, 1000))
    points = elements(curves_svg("loss", [long]), "path", "mean")[0].get("d").count("L") + 1
    assert points == 250


def test_differences_and_ranks_show_what_they_are_given() -> None:
    values = np.array([0.1, -0.2, math.nan])
    svg = differences_svg("Dice", "", {"r": (difference(values, np.zeros(3), True), values)}, 1, [0, 1, 2])
    assert [dot.get("data-t") for dot in elements(svg, "circle", "d")] == ["r: +0.100", "r: −0.200"]
    bars = elements(ranks_svg("r", np.array([[0.75, 0.25], [0.25, 0.75]]), [("one", 0), ("two", 1)]), "rect", "bar")
    widths = [float(bar.get("width")) for bar in bars]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.01)


def test_the_mean_of_curves_is_over_equal_epochs() -> None:
    """The second fold has no log of epochs 0 to 4, so the mean begins at the end of epoch 5."""
    lines = [Line("a", 0, fold, np.arange(first, 10), np.ones(10 - first)) for fold, first in (("0", 0), ("1", 5))]
    (mean,) = elements(curves_svg("loss", lines), "path", "mean")
    left, edge = 46, 388
    assert mean.get("d").startswith(f"M{left + (edge - left) * 6 / 10:.1f} ")


@given(st.integers(1, 2000))
def test_epochs_have_integer_ticks(epochs: int) -> None:
    ticks = Scale(0, epochs, 0, 100, integer=True).ticks(6)
    assert ticks[0] == 0 and len(ticks) >= 2 and all(tick == int(tick) for tick in ticks)
