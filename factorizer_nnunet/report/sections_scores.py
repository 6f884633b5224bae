"""Sections of the page: headline, table of scores, every case in figures, and the table of all cases."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from factorizer_nnunet.evaluation.metrics import NSD_PREFIX, Metric
from factorizer_nnunet.pages.markup import (
    cell,
    charts,
    csv_button,
    dash,
    details,
    figure,
    note,
    number,
    table,
    table_below,
    text_of,
)
from factorizer_nnunet.report.charts.axes import model_class, model_heads
from factorizer_nnunet.report.charts.strips import Strip, strip_svg
from factorizer_nnunet.report.statistics import Estimate, estimate
from factorizer_nnunet.report.study import Group, Scored

_FIRST = ("dice", "hd95", "nsd_1mm", "sensitivity", "precision", "volume_error")  # always shown; others on demand
_IN_TABLE_OF_CASES = ("dice", "hd95", "volume_error", "lesion_f1")  # and surface Dice; others on demand
UNDEFINED = "not defined: the region is empty in the reference, the prediction or both"
_NEVER_DEFINED = "not defined in any case: the region is empty in the reference, the prediction or both"
_MIN_CASES = 8  # fewer do not show what is usual
_FENCE = 1.5  # interquartile ranges below the lower quartile: Tukey's outliers


def headline(group: Group) -> str:
    """A card for each model with the leading metrics, the first one large."""
    cards = []
    for scored in group.scored:
        lines = []
        for place, metric in enumerate(group.leading):
            found = estimate(case_means(group, scored, metric.key))
            lines.append(
                f'<span class="{"small" if place else "big"}"><b>{_mean(found, metric, metric.unit)}</b> '
                f'{text_of(metric.title)} <span class="soft">{_interval(found, metric)}, {found.count} cases'
                "</span></span>"
            )
        cards.append(
            f'<li class="card {model_class(scored.place)}"><h4>{text_of(scored.title)}</h4>{"".join(lines)}</li>'
        )
    regions = " over regions, then over cases," if len(group.regions) > 1 else ""
    return f'<ul class="cards">{"".join(cards)}</ul>' + note(f"Mean{regions} with 95 % interval.")


def case_means(group: Group, scored: Scored, key: str) -> np.ndarray:
    """A metric's mean over the regions in which it is defined, (cases,); NaN if it is defined in none."""
    values = np.stack([group.values(scored, region, key) for region in group.regions])
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    count = known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def mean_dice(group: Group) -> np.ndarray:
    """Mean Dice over regions, (models, cases)."""
    return np.stack([case_means(group, scored, "dice") for scored in group.scored])


def _mean(found: Estimate, metric: Metric, unit: str = "") -> str:
    """A mean, or a dash with the reason; HTML."""
    if math.isnan(found.mean):
        return dash(_NEVER_DEFINED)
    return metric.with_unit(metric.shown(found.mean)) if unit else metric.shown(found.mean)


def _interval(found: Estimate, metric: Metric) -> str:
    return "" if math.isnan(found.low) else f"[{metric.shown(found.low)}, {metric.shown(found.high)}]"


def scores_section(group: Group) -> str:
    """Means with intervals over all cases, a column per region and model; below them those of each fold."""
    several = len(group.scored) > 1
    regions = "".join(
        f'<th scope="colgroup" colspan="{len(group.scored)}">{text_of(region)}</th>' for region in group.regions
    )
    names = model_heads([(scored.title, scored.place) for scored in group.scored])
    second = f"<tr><td></td>{names * len(group.regions)}</tr>" if several else ""
    rows = []
    for metric in group.metrics:
        cells = []
        for region in group.regions:
            found = [group.estimate(scored, region, metric) for scored in group.scored]
            best = _best([one.mean for one in found], metric) if several else None
            cells += [_cell(one, metric, one.mean == best) for one in found]
        rows.append(f'<tr><th scope="row">{_head(metric)}</th>{"".join(cells)}</tr>')
    overall = table_below(f'<tr><th scope="col">metric</th>{regions}</tr>{second}', rows, "scores")
    lead = "Mean [95 % interval]; below it, the median and the number of cases in which the metric is defined."
    bold = " Bold: best mean." if several else ""
    return note(f"{lead}{bold} ↑ higher is better, ↓ lower is better.") + overall + _per_fold(group)


def _best(means: Sequence[float], metric: Metric) -> float | None:
    known = [mean for mean in means if not math.isnan(mean)]
    if metric.higher_is_better is None or len(set(known)) < 2:
        return None
    return max(known) if metric.higher_is_better else min(known)


def _head(metric: Metric) -> str:
    return text_of(metric.title_and_unit) + metric.arrow


def _cell(found: Estimate, metric: Metric, best: bool) -> str:
    mean = f"<b>{_mean(found, metric)}</b>" if best else _mean(found, metric)
    median = dash(_NEVER_DEFINED) if math.isnan(found.median) else metric.shown(found.median)
    fewer = ' class="fewer"' if found.defined < found.cases else ""
    return (
        f'<td class="score">{mean} <span class="soft">{_interval(found, metric)}</span><br><small>median '
        f"{median}; <span{fewer}>{found.count}</span></small></td>"
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
                    cells.append(f"<td>{_mean(found, metric)} {interval}</td>")
                rows.append(f"<tr>{cell(region)}<td>{_head(metric)}</td>{''.join(cells)}</tr>")
        sizes = [sum(case.fold == fold for case in scored.result.cases) for fold in folds]
        heads = ["region", "metric", *(f"fold {fold} (n = {size})" for fold, size in zip(folds, sizes, strict=True))]
        parts.append(details(f"Per fold: {scored.title}", table(heads, rows)))
    return "".join(parts)


def strips_section(group: Group) -> str:
    """A strip and box plot of every metric that is not a count."""
    figures: dict[bool, list[str]] = {True: [], False: []}
    for metric in group.measured:
        strips = {
            region: [Strip(one.title, one.place, group.values(one, region, metric.key)) for one in group.scored]
            for region in group.regions
        }
        plot = figure(f"<b>{_head(metric)}</b>", strip_svg(metric, strips, group.numbers))
        figures[metric.key in _FIRST].append(plot)
    lead = (
        "Each dot is a case; boxes contain the middle half of the cases, with a line at the median. Point at a dot to "
        "see the case and highlight it in all figures; click to keep it highlighted. With the keyboard: Tab to a "
        "figure, then the arrow keys and Enter."
    )
    more = details("More metrics", charts(figures[False])) if figures[False] else ""
    return charts(figures[True], lead) + more


def cases_section(group: Group, pictured: Collection[str]) -> str:
    """A row for every case, with a link to its picture if there is one; a second table has the other metrics."""
    lead = "Click a case to open it, a column head to sort.  " + csv_button("scores")
    main, others = (_table_of_cases(group, pictured, chosen) for chosen in (True, False))
    return note(lead) + f'<div class="cases">{main}</div>' + details("All other metrics", others)


def outlying(group: Group) -> str:
    """Names of the cases with an unusually low Dice, by model, as HTML; "" if there are none."""
    lines = []
    for scored, values in zip(group.scored, mean_dice(group), strict=True):
        known = values[~np.isnan(values)]
        if known.size < _MIN_CASES:
            continue
        low, high = np.percentile(known, (25, 75))
        found = [n for n in np.argsort(values) if values[n] < low - _FENCE * (high - low)]
        links = [
            f'<button class="open" data-view="{group.numbers[n]}">{text_of(group.cases[n])}</button> ({values[n]:.3f})'
            for n in found
        ]
        name = f"{text_of(scored.title)}: " if len(group.scored) > 1 else ""
        if found:
            lines.append(f"<p><b>Outliers</b>, mean Dice far below the other cases. {name}{', '.join(links)}</p>")
    return "".join(lines)


def _table_of_cases(group: Group, pictured: Collection[str], first: bool) -> str:
    fold_of = {case.name: case.fold for case in group.scored[0].result.cases}
    has_folds = bool(group.scored[0].result.folds)
    columns = _case_columns(group, first)
    heads = ["case", *(["fold"] if has_folds else []), *(head for head, *_ in columns)]
    rows = []
    for case, place in zip(group.cases, group.numbers, strict=True):
        name = f'<button class="open" data-view="{place}">{text_of(case)}</button>'
        name += f' <a href="#picture-{place}">pictures</a>' if first and case in pictured else ""
        fold = [f'<td class="number" data-value="{(own := text_of(fold_of[case]))}">{own}</td>'] if has_folds else []
        cells = [
            _number(scored.scores.value(case, region, metric.key), metric) for _, scored, region, metric in columns
        ]
        row = "".join([f'<th scope="row" data-value="{text_of(case)}">{name}</th>', *fold, *cells])
        anchor = f' id="case-{place}"' if first else ""
        rows.append(f'<tr{anchor} data-view="{place}">{row}</tr>')
    return table(heads, rows, sortable=True)


def _case_columns(group: Group, first: bool) -> list[tuple[str, Scored, str, Metric]]:
    """Head, model, region and metric of each column; the reference's volume is the same for all models."""
    several = len(group.scored) > 1
    columns = []
    for region in group.regions:
        for metric in group.metrics:
            if (metric.key in _IN_TABLE_OF_CASES or metric.key.startswith(NSD_PREFIX)) is not first:
                continue
            head, shared = f"{region}: {metric.title_and_unit}", metric.key == "volume_reference"
            for scored in group.scored[:1] if shared else group.scored:
                model = f" ({scored.title})" if several and not shared else ""
                columns.append((head + model, scored, region, metric))
    return columns


def _number(value: float, metric: Metric) -> str:
    return number(None if math.isnan(value) else value, metric.shown(value), undefined=UNDEFINED)
