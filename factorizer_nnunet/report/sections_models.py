"""Section of the page: models against each other on the same cases."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from factorizer_nnunet.evaluation.metrics import Metric
from factorizer_nnunet.pages.markup import table, text_of
from factorizer_nnunet.report.charts.axes import model_class
from factorizer_nnunet.report.charts.comparison import differences_svg, ranks_svg
from factorizer_nnunet.report.statistics import Difference, difference, holm, rank_shares
from factorizer_nnunet.report.study import Group, Scored


@dataclass(frozen=True)
class Comparison:
    """Two models in one region by one metric: the first minus the second."""

    first: Scored
    second: Scored
    region: str
    metric: Metric
    values: np.ndarray  # (cases,), NaN where one has none
    found: Difference


def compare(group: Group) -> list[Comparison]:
    """All pairs of models in all regions by all metrics that are no counts; Holm's correction is over all of them."""
    drafts = []
    for second, first in itertools.combinations(group.scored, 2):
        for region in group.regions:
            for metric in group.measured:
                one, other = (group.values(scored, region, metric) for scored in (first, second))
                found = difference(one, other, bool(metric.higher_is_better))
                drafts.append(Comparison(first, second, region, metric, one - other, found))
    corrected = holm([draft.found.p_value for draft in drafts])
    return [replace(d, found=replace(d.found, p_holm=p)) for d, p in zip(drafts, corrected, strict=True)]


def verdicts(group: Group, comparisons: list[Comparison]) -> str:
    """A sentence for each pair of models and region, on the first of the leading metrics."""
    return "".join(f"<p>{_verdict(one)}</p>" for one in comparisons if one.metric == group.leading[0])


def _verdict(one: Comparison) -> str:
    found, mean = one.found, one.found.estimate
    names = [f'<b class="{model_class(s.place)}">{text_of(s.title)}</b>' for s in (one.first, one.second)]
    if not mean.defined:
        return f"{text_of(one.region)}: no case has a {one.metric.title} of both {names[0]} and {names[1]}."
    digits, unit = one.metric.digits, f" {one.metric.unit}" if one.metric.unit else ""
    sure = "clear of" if mean.low > 0 or mean.high < 0 else "includes"
    interval = f"95 % interval {_signed(mean.low, digits)} to {_signed(mean.high, digits)}, {sure} 0"
    interval = "too few cases for an interval" if math.isnan(mean.low) else interval
    return (
        f"{text_of(one.region)}: {names[0]} {_signed(mean.mean, digits)}{unit} {one.metric.title} against {names[1]} "
        f"({interval}); better in {found.wins}, equal in {found.ties}, worse in {found.losses} "
        f"of {mean.defined} cases; p {_p(found.p_holm, '= ')} after correction."
    )


def comparison_section(group: Group, comparisons: list[Comparison], case_numbers: Mapping[str, int]) -> str:
    """Differences, tests, and ranks under resampling; "" for one model."""
    if not comparisons:
        return ""
    numbers = [case_numbers[case] for case in group.cases]
    figures = []
    for (first, second), metric in itertools.product(_pairs(comparisons), group.leading):
        own = [c for c in comparisons if (c.first, c.second, c.metric) == (first, second, metric)]
        if not own or all(not c.found.estimate.defined for c in own):
            continue
        unit = f", {metric.unit}" if metric.unit else ""
        better = "right" if metric.higher_is_better else "left"
        names = f"{text_of(first.title)} minus {text_of(second.title)}"
        rows = {c.region: (c.found, c.values) for c in own}
        svg = differences_svg(f"difference in {metric.title}{unit}", metric.unit, rows, first.place, numbers)
        caption = f"<b>{names}</b> {text_of(metric.title)}; better to the {better}"
        figures.append(f"<figure><figcaption>{caption}</figcaption>{svg}</figure>")
    rows = [_row(one, len(_pairs(comparisons)) > 1) for one in comparisons]
    pair = ["models"] if len(_pairs(comparisons)) > 1 else []
    heads = [
        *pair,
        "region",
        "metric",
        "mean difference",
        "95 % interval",
        "win / tie / loss",
        "n of N",
        "p",
        "p, Holm",
    ]
    first, second = _pairs(comparisons)[0]
    against = "" if pair else f" Differences are {text_of(first.title)} minus {text_of(second.title)}."
    return (
        f"<p class=\"soft\">On the same cases.{against} Wilcoxon's signed-rank test, two-sided; Holm's correction over "
        f"the {len(comparisons)} tests of this table. Wins count cases in which the first model is better.</p>"
        f'<div class="charts">{"".join(figures)}</div>{table(heads, rows, sortable=True)}{_ranks(group)}'
    )


def _pairs(comparisons: list[Comparison]) -> list[tuple[Scored, Scored]]:
    pairs = []
    for one in comparisons:
        if (one.first, one.second) not in pairs:
            pairs.append((one.first, one.second))
    return pairs


def _row(one: Comparison, with_pair: bool) -> str:
    found, mean, digits = one.found, one.found.estimate, one.metric.digits
    names = f"<td>{text_of(one.first.title)} − {text_of(one.second.title)}</td>" if with_pair else ""
    unit = f", {one.metric.unit}" if one.metric.unit else ""
    arrow = "↑" if one.metric.higher_is_better else "↓"
    interval = "–" if math.isnan(mean.low) else f"{_signed(mean.low, digits)} to {_signed(mean.high, digits)}"
    mean_cell = "" if math.isnan(mean.mean) else f' data-value="{mean.mean:.6g}"'
    p_cells = "".join(
        f'<td class="number"{"" if math.isnan(p) else f" data-value={p:.6g}"}>{_p(p)}</td>'
        for p in (found.p_value, found.p_holm)
    )
    return (
        f"<tr>{names}<td>{text_of(one.region)}</td><td>{text_of(one.metric.title)}{unit} {arrow}</td>"
        f'<td class="number"{mean_cell}>{_signed(mean.mean, digits)}</td><td>{interval}</td>'
        f"<td>{found.wins} / {found.ties} / {found.losses}</td><td>{mean.count}</td>{p_cells}</tr>"
    )


def _signed(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")


def _p(p: float, equal: str = "") -> str:
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{equal}{p:.3f}"


def _ranks(group: Group) -> str:
    figures = []
    models = [(scored.title, scored.place) for scored in group.scored]
    for region in group.regions:
        for metric in group.leading:
            values = np.stack([group.values(scored, region, metric) for scored in group.scored])
            values = values[:, np.isfinite(values).all(axis=0)]
            if values.shape[1] < 2:
                continue
            shares = rank_shares(values, bool(metric.higher_is_better))
            title = f"{region}, {metric.title}"
            caption = f'<b>{text_of(title)}</b> <span class="soft">{values.shape[1]} of {len(group.cases)} cases</span>'
            figures.append(f"<figure><figcaption>{caption}</figcaption>{ranks_svg(title, shares, models)}</figure>")
    if not figures:
        return ""
    return (
        '<h4>Stability of the ranking</h4><p class="soft">How often each model has each rank by its mean when the '
        f'cases are drawn anew with replacement.</p><div class="charts narrow">{"".join(figures)}</div>'
    )
