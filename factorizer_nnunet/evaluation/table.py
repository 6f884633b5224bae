"""Scores as a Markdown page: all metrics by region, and how they were computed."""

from __future__ import annotations

import math

from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.evaluation.metrics import VOXELS, Metric
from factorizer_nnunet.evaluation.scores import Scores, Summary


def markdown(scores: Scores) -> str:
    """The page; each cell contains the mean, the standard deviation and the number of cases."""
    ranked = scores.settings.get("ranked_by", [])
    title = scores.settings.get("title") or scores.scheme
    only_one = scores.settings.get("cases_in_one_folder_only", [])
    parts = [
        f"# Scores of {count_of(len(scores.cases), 'case')} ({title})",
        "Mean ± standard deviation (n of N cases). ↑ higher is better, ↓ lower is better."
        + (" Bold: the metrics that the challenge ranked by." if ranked else ""),
        *(f"{name}: {value}." for name, value in _sources(scores) if value),
        score_table(scores),
        *([f"Not scored, because only one folder has them: {', '.join(only_one)}."] if only_one else []),
        "## Empty masks",
        "The score of a case in which both masks, only the reference or only the prediction have no voxel.",
        markdown_table(empty_mask_rows(scores)),
        "## Lesions",
        markdown_table(lesion_rule_rows(scores)),
    ]
    return "\n\n".join(parts) + "\n"


def _sources(scores: Scores) -> list[tuple[str, str]]:
    settings = scores.settings
    return [
        ("Label values of the challenge's regions", settings.get("label_values") or ""),
        ("dataset.json", settings.get("dataset_json") or "none"),
        ("Geometry of the files", "ignored" if settings.get("geometry_ignored") else ""),
    ]


def score_table(scores: Scores) -> str:
    """A table with a row per metric and a column per region."""
    ranked = scores.settings.get("ranked_by", [])
    rows = [["", *scores.regions]]
    for metric in scores.metrics:
        if metric in VOXELS:
            continue
        title = metric.title + (f" [{metric.unit}]" if metric.unit else "") + metric.arrow
        cells = [_cell(metric, scores.summary(region, metric.key)) for region in scores.regions]
        rows.append([f"**{title}**" if metric.key in ranked else title, *cells])
    return markdown_table(rows)


def empty_mask_rows(scores: Scores) -> list[list[str]]:
    """A table of the values for empty masks, a row per metric; the first row is the header."""
    policy = scores.settings.get("empty_masks", {})
    return [["metric", *(f"{key} empty" for key in ("both", "reference", "prediction"))]] + [
        [metric, *map(str, values.values())] for metric, values in policy.items()
    ]


def lesion_rule_rows(scores: Scores) -> list[list[str]]:
    """A table of lesion rules, a row per setting of `LesionRule`, a column per region; the first row is the header."""
    rules = scores.settings.get("lesions", {})
    names = list(next(iter(rules.values()), {}))
    return [["", *rules]] + [
        [name.replace("_mm3", ", mm³").replace("_", " "), *(_shown(rule[name]) for rule in rules.values())]
        for name in names
    ]


def _cell(metric: Metric, summary: Summary) -> str:
    if not summary.defined:
        return f"undefined ({summary.count})"
    spread = "" if math.isnan(summary.std) else f" ± {summary.std:.{metric.digits}f}"
    mean = round(summary.mean, metric.digits) + 0.0  # not -0.00
    return f"{mean:.{metric.digits}f}{spread} ({summary.count})"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value in (None, [], "") else str(value)
