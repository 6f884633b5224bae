"""Section of the page: models compared with each other on the same cases."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.evaluation.metrics import Metric
from factorizer_nnunet.pages.markup import charts, dash, details, figure, note, number, table, text_of
from factorizer_nnunet.report.charts.axes import model_class
from factorizer_nnunet.report.charts.comparison import differences_svg, ranks_svg
from factorizer_nnunet.report.repeats import first_trainings, spread
from factorizer_nnunet.report.statistics import (
    ALPHA,
    Difference,
    cases_needed,
    difference,
    holm,
    rank_shares,
    smallest_p,
)
from factorizer_nnunet.report.study import Group, Scored

_NEVER_BOTH = "not defined for both models in any case"
_NO_TEST = "no test: too few cases, or no case in which the models differ"


@dataclass(frozen=True)
class Comparison:
    """Two models compared in one region by one metric: the first minus the second."""

    first: Scored
    second: Scored
    region: str
    metric: Metric
    values: np.ndarray  # (cases,), NaN if the metric is undefined for one of them
    found: Difference
    primary: bool  # corrected for the number of primary comparisons; others are exploratory
    spread: float  # the largest difference between trainings of one of the models; NaN if each was trained once

    @property
    def may_be_chance(self) -> bool:
        """Whether trainings of one of the models differ as much."""
        return abs(self.found.estimate.mean) <= self.spread


def compare(group: Group) -> list[Comparison]:
    """All pairs of models in all regions by all metrics that are not counts, with Holm's correction of the primary.

    Of models that were trained several times, the first trainings are compared.
    """
    drafts = []
    for second, first in itertools.combinations(first_trainings(group), 2):
        for region in group.regions:
            for metric in group.measured:
                one, other = (group.values(scored, region, metric.key) for scored in (first, second))
                found = difference(one, other, bool(metric.higher_is_better))
                primary = metric in group.primary
                spreads = [spread(group, scored, region, metric) for scored in (first, second)]
                largest = max((value for value in spreads if not math.isnan(value)), default=math.nan)
                drafts.append(Comparison(first, second, region, metric, one - other, found, primary, largest))
    corrected = holm([draft.found.p_value if draft.primary else math.nan for draft in drafts])
    return [replace(d, found=replace(d.found, p_holm=p)) for d, p in zip(drafts, corrected, strict=True)]


def verdicts(group: Group, comparisons: list[Comparison]) -> str:
    """A sentence for each pair of models and region, by the first leading metric."""
    return "".join(f"<p>{_verdict(one)}</p>" for one in comparisons if one.metric == group.leading[0])


def _verdict(one: Comparison) -> str:
    found, mean, metric = one.found, one.found.estimate, one.metric
    first, second = (f'<b class="{model_class(s.place)}">{text_of(s.title)}</b>' for s in (one.first, one.second))
    if not mean.defined:
        return f"{text_of(one.region)}: {metric.title} is not defined for both {first} and {second} in any case."
    interval = "too few cases for an interval"
    if not math.isnan(mean.low):
        zero = "excludes" if mean.low > 0 or mean.high < 0 else "includes"
        interval = f"95 % interval {_signed(mean.low, metric)} to {_signed(mean.high, metric)}, {zero} 0"
    difference_and_unit = metric.with_unit(_signed(mean.mean, metric))
    return (
        f"{text_of(one.region)}: {metric.title} of {first} minus {second}: {difference_and_unit} ({interval}); "
        f"{first} is better in {found.wins}, equal in {found.ties} and worse in {found.losses} of {mean.defined} "
        f"cases; {_test_result(one)}.{_chance(one)}"
    )


def _chance(one: Comparison) -> str:
    if not one.may_be_chance:
        return ""
    largest = one.metric.with_unit(one.metric.shown(one.spread))
    return f" ≈ Trainings of the same model differ by up to {largest}: this difference may be chance."


def _test_result(one: Comparison) -> str:
    defined = one.found.estimate.defined
    if smallest_p(defined) >= ALPHA:
        return f"too few cases for a test, which {cases_needed(1)} or more can decide"
    return f"corrected p {_p(one.found.p_holm, '= ')}"


def comparison_section(group: Group, comparisons: list[Comparison]) -> str:
    """Differences, tests, and ranks under resampling; "" for a single model."""
    if not comparisons:
        return ""
    pairs = list(dict.fromkeys((one.first, one.second) for one in comparisons))
    primary = [one for one in comparisons if one.primary]
    figures = [_differences(group, comparisons, pair, metric) for pair in pairs for metric in group.leading]
    several = len(pairs) > 1
    heads = ["models"] if several else []
    heads += ["region", "metric", "mean difference", "95 % interval", "win / tie / loss", "n of N", "p"]
    first, second = pairs[0]
    against = "" if several else f" Differences are {text_of(first.title)} minus {text_of(second.title)}."
    lead = (
        f"On the same cases.{against} Wilcoxon's signed-rank test, two-sided, with Holm's correction over the "
        f"{count_of(len(primary), 'primary comparison')} in this table: {_titles(group.primary)} of each region. Wins "
        f"are cases in which the first model is better. {_what_n_shows(primary)}"
    )
    main = table([*heads, "p, Holm"], [_row(one, several) for one in primary], sortable=True)
    others = [one for one in comparisons if not one.primary]
    more = ""
    if others:
        warning = note(
            f"The {count_of(len(others), 'other comparison')}, not corrected: about one in 20 has p < 0.05 by chance, "
            "and many measure nearly the same. They suggest what to test on new cases; they prove nothing."
        )
        more = details("Exploratory comparisons", warning + table(heads, [_row(one, several) for one in others], True))
    return note(lead) + charts(figures) + main + more + _ranks(group)


def _titles(metrics: Sequence[Metric]) -> str:
    return " and ".join(filter(None, (", ".join(m.title for m in metrics[:-1]), metrics[-1].title)))


def _what_n_shows(primary: Sequence[Comparison]) -> str:
    """Which p-values the number of cases allows."""
    cases = min((one.found.estimate.defined for one in primary if one.found.estimate.defined), default=0)
    tests = sum(not math.isnan(one.found.p_value) for one in primary)
    if not tests:
        return ""
    least = min(1.0, smallest_p(cases) * tests)
    text = f"With {count_of(cases, 'case')}, the smallest p is {_p_text(smallest_p(cases))}"
    text += f", {_p_text(least)} after the correction for {tests} tests" if tests > 1 else ""
    if least < ALPHA:
        return f"{text}."
    return (
        f"{text}: no difference, however clear, can reach {ALPHA}; that takes at least {cases_needed(tests)} cases. "
        "Read the intervals."
    )


def _p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "below 0.001"


def _differences(group: Group, comparisons: list[Comparison], pair: tuple[Scored, Scored], metric: Metric) -> str:
    """A figure of one pair of models and one metric; "" if the metric is undefined in all cases."""
    own = [c for c in comparisons if (c.first, c.second, c.metric) == (*pair, metric)]
    if all(not c.found.estimate.defined for c in own):
        return ""
    rows = {c.region: (c.found, c.values) for c in own}
    svg = differences_svg(f"difference in {metric.title_and_unit}", metric.unit, rows, pair[0].place, group.numbers)
    better = "right" if metric.higher_is_better else "left"
    names = f"{text_of(pair[0].title)} minus {text_of(pair[1].title)}"
    return figure(f"<b>{names}</b> {text_of(metric.title)}; better to the {better}", svg)


def _row(one: Comparison, with_pair: bool) -> str:
    found, mean, metric = one.found, one.found.estimate, one.metric
    names = f"<td>{text_of(one.first.title)} − {text_of(one.second.title)}</td>" if with_pair else ""
    interval = f"{_signed(mean.low, metric)} to {_signed(mean.high, metric)}"
    interval = dash("too few cases for an interval") if math.isnan(mean.low) else interval
    marked = _signed(mean.mean, metric) + (" ≈" if one.may_be_chance else "")
    difference = number(_known(mean.mean), marked, undefined=_NEVER_BOTH)
    p_cells = "".join(
        number(_known(p), _p(p), undefined=_NO_TEST)
        for p in ((found.p_value, found.p_holm) if one.primary else (found.p_value,))
    )
    return (
        f"<tr>{names}<td>{text_of(one.region)}</td><td>{text_of(metric.title_and_unit)}{metric.arrow}</td>"
        f"{difference}<td>{interval}</td>"
        f"<td>{found.wins} / {found.ties} / {found.losses}</td><td>{mean.count}</td>{p_cells}</tr>"
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _signed(value: float, metric: Metric) -> str:
    return "–" if math.isnan(value) else f"{value:+.{metric.digits}f}".replace("-", "−")


def _p(p: float, equal: str = "") -> str:
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{equal}{p:.3f}"


def _ranks(group: Group) -> str:
    figures = []
    compared = first_trainings(group)
    models = [(scored.title, scored.place) for scored in compared]
    for region in group.regions:
        for metric in group.leading:
            values = np.stack([group.values(scored, region, metric.key) for scored in compared])
            values = values[:, np.isfinite(values).all(axis=0)]
            if values.shape[1] < 2:
                continue
            shares = rank_shares(values, bool(metric.higher_is_better))
            title = f"{region}, {metric.title}"
            count = f'<span class="soft">{values.shape[1]} of {len(group.cases)} cases</span>'
            figures.append(figure(f"<b>{text_of(title)}</b> {count}", ranks_svg(title, shares, models)))
    lead = "How often each model has each rank by its mean when cases are resampled with replacement."
    shown = charts(figures, lead, "charts narrow")
    return f"<h3>Stability of the ranking</h3>{shown}" if shown else ""
