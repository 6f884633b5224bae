"""Sections of the page: headline, table of scores, every case in figures, and the table of all cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from factorizer_nnunet.evaluation.metrics import Metric
from factorizer_nnunet.pages.markup import number, table, text_of
from factorizer_nnunet.report.charts.axes import model_class
from factorizer_nnunet.report.charts.strips import Strip, strip_svg
from factorizer_nnunet.report.statistics import Estimate, estimate
from factorizer_nnunet.report.study import Group, Scored

_FIRST = ("dice", "hd95", "nsd_1mm", "sensitivity", "precision", "volume_error")  # drawn at once; the others on demand
_IN_TABLE_OF_CASES = ("dice", "hd95", "volume_reference", "volume_prediction")


def headline(group: Group) -> str:
    """A card for each model: the leading metrics, the first one large."""
    cards = []
    for scored in group.scored:
        lines = []
        for place, metric in enumerate(group.leading):
            found = estimate(case_means(group, scored, metric.key))
            unit = f" {metric.unit}" if metric.unit else ""
            big = "small" if place else "big"
            lines.append(
                f'<span class="{big}"><b>{told(found.mean, metric)}{unit}</b> {text_of(metric.title)} '
                f'<span class="soft">{_interval(found, metric)}{", " + found.count + " cases"}</span></span>'
            )
        cards.append(
            f'<li class="card {model_class(scored.place)}"><h4>{text_of(scored.title)}</h4>{"".join(lines)}</li>'
        )
    what = (
        "mean over regions, then over cases, with 95 % interval"
        if len(group.regions) > 1
        else "mean with 95 % interval"
    )
    return f'<ul class="cards">{"".join(cards)}</ul><p class="soft">{what[0].upper()}{what[1:]}.</p>'


def case_means(group: Group, scored: Scored, key: str) -> np.ndarray:
    """A metric's mean over the regions in which it is defined, (cases,), NaN where it is in none."""
    values = np.stack([group.values(scored, region, scored.scores.metric(key)) for region in group.regions])
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    count = known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def told(value: float, metric: Metric) -> str:
    """A value as tables show it."""
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{round(value, metric.digits) + 0.0:.{metric.digits}f}".replace("-", "−")


def _interval(found: Estimate, metric: Metric) -> str:
    return "" if math.isnan(found.low) else f"[{told(found.low, metric)}, {told(found.high, metric)}]"


def scores_section(group: Group) -> str:
    """Means with intervals over all cases, columns for regions and models, and below them those of each fold."""
    several = len(group.scored) > 1
    above = "".join(
        f'<th scope="colgroup" colspan="{len(group.scored)}">{text_of(region)}</th>' for region in group.regions
    )
    names = "".join(
        f'<th scope="col"><i class="key {model_class(scored.place)}"></i>{text_of(scored.title)}</th>'
        for scored in group.scored
    )
    second = f"<tr><td></td>{names * len(group.regions)}</tr>" if several else ""
    rows = []
    for metric in group.metrics:
        cells = []
        for region in group.regions:
            found = [group.estimate(scored, region, metric) for scored in group.scored]
            best = _best([one.mean for one in found], metric) if several else None
            cells += [_cell(one, metric, one.mean == best) for one in found]
        rows.append(f'<tr><th scope="row">{_metric(metric)}</th>{"".join(cells)}</tr>')
    head = f'<thead><tr><th scope="col">metric</th>{above}</tr>{second}</thead>'
    overall = f'<div class="scroll"><table class="scores">{head}<tbody>{"".join(rows)}</tbody></table></div>'
    lead = "Mean [95 % interval], below it median and number of cases for which the metric is defined."
    best_words = " Bold: the best mean." if several else ""
    return f'<p class="soft">{lead}{best_words} ↑ higher is better, ↓ lower is better.</p>{overall}{_per_fold(group)}'


def _best(means: Sequence[float], metric: Metric) -> float | None:
    known = [mean for mean in means if not math.isnan(mean)]
    if metric.higher_is_better is None or len(set(known)) < 2:
        return None
    return max(known) if metric.higher_is_better else min(known)


def _metric(metric: Metric) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
    return f"{text_of(metric.title)}{', ' + metric.unit if metric.unit else ''}{arrow}"


def _cell(found: Estimate, metric: Metric, best: bool) -> str:
    mean = told(found.mean, metric)
    mean = f"<b>{mean}</b>" if best else mean
    fewer = ' class="fewer"' if found.defined < found.cases else ""
    return (
        f'<td class="score">{mean} <span class="soft">{_interval(found, metric)}</span><br><small>median '
        f"{told(found.median, metric)}; <span{fewer}>{found.count}</span></small></td>"
    )


def _per_fold(group: Group) -> str:
    parts = []
    for scored in group.scored:
        folds = scored.result.folds
        if not folds:
            continue
        rows = []
        for region in group.regions:
            for metric in group.judged:
                cells = []
                for fold in folds:
                    found = group.estimate(scored, region, metric, fold)
                    count = f" ({found.count})" if found.defined < found.cases else ""
                    interval = f'<span class="soft">{_interval(found, metric)}{count}</span>'
                    cells.append(f"<td>{told(found.mean, metric)} {interval}</td>")
                rows.append(f"<tr><td>{text_of(region)}</td><td>{_metric(metric)}</td>{''.join(cells)}</tr>")
        sizes = [sum(case.fold == fold for case in scored.result.cases) for fold in folds]
        heads = ["region", "metric", *(f"fold {fold} (n = {size})" for fold, size in zip(folds, sizes, strict=True))]
        parts.append(f"<details><summary>Per fold: {text_of(scored.title)}</summary>{table(heads, rows)}</details>")
    return "".join(parts)


def strips_section(group: Group, case_numbers: Mapping[str, int]) -> str:
    """A strip and box plot of every metric that is no count."""
    numbers = [case_numbers[case] for case in group.cases]
    figures: dict[bool, list[str]] = {True: [], False: []}
    for metric in group.measured:
        strips = {
            region: [Strip(scored.title, scored.place, group.values(scored, region, metric)) for scored in group.scored]
            for region in group.regions
        }
        svg = strip_svg(metric, strips, numbers)
        figures[metric.key in _FIRST].append(f"<figure><figcaption><b>{_metric(metric)}</b></figcaption>{svg}</figure>")
    more = f'<details><summary>Further metrics</summary><div class="charts">{"".join(figures[False])}</div></details>'
    return (
        '<p class="soft">Every dot is a case; boxes hold the middle half, the line is the median. Point at a dot for '
        "its case, which then stands out in all figures; click to keep it. By keyboard: tab to a figure, then arrows "
        "and enter.</p>"
        f'<div class="charts">{"".join(figures[True])}</div>{more if figures[False] else ""}'
    )


def cases_section(group: Group, case_numbers: Mapping[str, int], pictured: set[str]) -> str:
    """A row for every case, its picture linked where there is one."""
    metrics = [metric for metric in group.metrics if metric.key in _IN_TABLE_OF_CASES]
    folds = bool(group.scored[0].result.folds)
    columns = []  # head, scored, region, metric
    for region in group.regions:
        for metric in metrics:
            unit = f", {metric.unit}" if metric.unit else ""
            if metric.key == "volume_reference":
                columns.append((f"{region}: {metric.title}{unit}", group.scored[0], region, metric))
                continue
            for scored in group.scored:
                model = f" ({scored.title})" if len(group.scored) > 1 else ""
                columns.append((f"{region}: {metric.title}{unit}{model}", scored, region, metric))
    heads = ["case", *(["fold"] if folds else []), *(head for head, *_ in columns)]
    fold_of = {case.name: case.fold for case in group.scored[0].result.cases}
    rows = []
    for case in group.cases:
        place = case_numbers[case]
        name = f'<a href="#picture-{place}">{text_of(case)}</a>' if case in pictured else text_of(case)
        fold = [f'<td class="number" data-value="{fold_of[case]}">{fold_of[case]}</td>'] if folds else []
        cells = [
            _number(scored.scores.value(case, region, metric.key), metric) for _, scored, region, metric in columns
        ]
        rows.append(f'<tr id="case-{place}"><th scope="row">{name}</th>{"".join([*fold, *cells])}</tr>')
    return f'<p class="soft">Click a head to sort.</p><div class="cases">{table(heads, rows, sortable=True)}</div>'


def _number(value: float, metric: Metric) -> str:
    return number(None) if math.isnan(value) else number(value, told(value, metric))
