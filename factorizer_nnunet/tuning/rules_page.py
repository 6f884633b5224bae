"""The page of ``tune-postprocessing``: rules, and scores before and after on cases that had no part in the choice."""

from __future__ import annotations

import math

from factorizer_nnunet.evaluation.metrics import LESIONS, OVERLAP, SURFACE, VOLUME, Metric
from factorizer_nnunet.pages.markup import cell, document, note, sections, table, text_of
from factorizer_nnunet.pages.style import SCRIPT, STYLE
from factorizer_nnunet.report.results import Result
from factorizer_nnunet.report.statistics import Estimate
from factorizer_nnunet.report.style import REPORT_STYLE
from factorizer_nnunet.tuning.rule_case import Objective
from factorizer_nnunet.tuning.rule_findings import MetricChange, RegionFinding, RuleTuningOutcome
from factorizer_nnunet.tuning.rule_search import MIN_CASES

_SCORE = Metric("score", "Score", "", True)
_METRICS = {metric.key: metric for metric in (_SCORE, *OVERLAP, *SURFACE, *VOLUME, *LESIONS)}


def rules_page(result: Result, outcome: RuleTuningOutcome, objective: Objective) -> str:
    """The page as HTML."""
    scheme = objective.regions.scheme
    metrics = ", ".join(_METRICS[key].title for key in objective.metrics)
    lead = (
        f"{outcome.num_cases} cases, each predicted by the fold that was not trained on it. The score is the mean over "
        f"regions of: {metrics} ({scheme.title}), each as a share of its best value. Rules were chosen on all but one "
        f"of {outcome.num_groups} groups of cases and applied to that group, in turn; gains are of these applications, "
        "so that no case had a part in the choice of the rules that it is scored with. A rule is kept if its gain is "
        "above 0 at a level of 5 % for all regions together (Bonferroni), and again together with the others."
    )
    if not outcome.with_thresholds:
        lead += " Without probabilities, thresholds were not tuned."
    rows = [_rule_row(name, found, outcome) for name, found in outcome.regions.items()]
    chosen = table(["region", "best rule", "chosen in", "gain of the score", "used"], rows)
    changes = [
        _change_row(region, _METRICS[key], change)
        for region, metrics_of_region in outcome.changes.items()
        for key, change in metrics_of_region.items()
    ]
    heads = ["region", "metric", "before", "after", "change [95 % interval]"]
    after = (
        "All kept rules together, on held-out cases. Rules were kept for their gains on these cases, which makes the "
        "changes a little too good."
        if outcome.rules
        else "No rule is used: after is before."
    )
    links, body = sections(
        [
            ("rules", "Rules", note(text_of(lead)) + chosen),
            ("scores", "Before and after", note(text_of(after)) + table(heads, changes)),
        ]
    )
    title = f"{result.dataset_name or 'Segmentation'}: postprocessing"
    header = f"<header><h1>{text_of(title)}</h1>{note(text_of(result.title))}</header>"
    warnings = "".join(f'<p class="warning">{text_of(warning)}</p>' for warning in outcome.warnings)
    return document(title, STYLE + REPORT_STYLE, SCRIPT, f"{header}{warnings}<nav>{links}</nav>{body}")


def _rule_row(name: str, found: RegionFinding, outcome: RuleTuningOutcome) -> str:
    used = "yes" if found.kept else f"no, {_why_not(found, outcome.num_cases)}"
    chosen = f"{found.agreeing} of {outcome.num_groups} groups"
    gain = f"{_signed(found.gain.mean, _SCORE)} {_interval(found.gain, _SCORE)}"
    return f"<tr>{cell(name)}{cell(found.rule)}{cell(chosen)}{cell(gain)}{cell(used)}</tr>"


def _why_not(found: RegionFinding, num_cases: int) -> str:
    """Why a rule is not kept."""
    if found.rule.is_default:
        return "nothing is better"
    if num_cases < MIN_CASES:
        return "too few cases"
    return "a loss together with other rules, or in another region" if found.beyond_noise else "no gain beyond noise"


def _change_row(region: str, metric: Metric, change: MetricChange) -> str:
    before, after = (f"{metric.shown(one.mean)} ({one.count})" for one in (change.before, change.after))
    shown = f"{_signed(change.change.mean, metric)} {_interval(change.change, metric)}"
    return (
        f"<tr>{cell(region)}{cell(metric.title_and_unit + metric.arrow)}{cell(before)}{cell(after)}{cell(shown)}</tr>"
    )


def _signed(value: float, metric: Metric) -> str:
    return "–" if math.isnan(value) else f"{value:+.{max(3, metric.digits)}f}".replace("-", "−")


def _interval(found: Estimate, metric: Metric) -> str:
    return "" if math.isnan(found.low) else f"[{_signed(found.low, metric)}, {_signed(found.high, metric)}]"
