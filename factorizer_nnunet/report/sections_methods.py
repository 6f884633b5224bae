"""Section of the page: how everything on it was counted, and with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from factorizer_nnunet import __version__
from factorizer_nnunet.pages.markup import table, text_of
from factorizer_nnunet.report.statistics import RESAMPLES
from factorizer_nnunet.report.study import Group

_LIBRARIES = ("numpy", "scipy", "SimpleITK", "nnunetv2", "torch")


def methods_section(groups: Sequence[Group]) -> str:
    """Statistics in words; the scheme's values for empty masks and its rules for lesions as tables."""
    scores = groups[0].scored[0].scores
    settings = scores.settings
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    items = {
        "scheme": ". ".join(filter(None, (settings.get("title", scores.scheme), settings.get("source")))),
        "ranked by": ", ".join(scores.metric(key).title for key in settings.get("ranked_by", ())),
        "intervals": f"bootstrap over cases, bias-corrected and accelerated, {RESAMPLES} resamples, 95 %",
        "n of N": "cases for which a metric is defined, of all cases",
        "tests": "Wilcoxon's signed-rank test, zeros ranked (Pratt), two-sided; Holm's correction",
        "ranks": f"by the mean of {RESAMPLES} resamples of the cases; models of equal mean share a rank",
        "versions": f"factorizer_nnunet {__version__}, {versions}",
    }
    listed = "".join(f"<dt>{name}</dt><dd>{text_of(text)}</dd>" for name, text in items.items() if text)
    return f"<dl>{listed}</dl>{_empty_masks(settings.get('empty_masks', {}))}{_lesions(settings.get('lesions', {}))}"


def _empty_masks(policy: Mapping[str, Mapping[str, Any]]) -> str:
    if not policy:
        return ""
    keys = ("both", "reference", "prediction")
    rows = [
        f"<tr><td>{text_of(metric)}</td>{''.join(f'<td>{text_of(values[key])}</td>' for key in keys)}</tr>"
        for metric, values in policy.items()
    ]
    heads = ["metric", "both empty", "reference empty", "prediction empty"]
    return f"<details><summary>What empty masks are worth</summary>{table(heads, rows)}</details>"


def _lesions(rules: Mapping[str, Mapping[str, Any]]) -> str:
    if not rules:
        return ""
    names = list(next(iter(rules.values())))
    rows = [
        f"<tr><td>{text_of(region)}</td>{''.join(f'<td>{_told(rule[name])}</td>' for name in names)}</tr>"
        for region, rule in rules.items()
    ]
    heads = ["region", *(name.replace("_mm3", ", mm³").replace("_", " ") for name in names)]
    return f"<details><summary>What is a lesion</summary>{table(heads, rows)}</details>"


def _told(value: object) -> str:
    """A setting for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return text_of("–" if value in (None, [], "") else value)
