"""Section of the page: how everything on it was computed, and with which software."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from factorizer_nnunet import __version__
from factorizer_nnunet.pages.markup import details, table, text_of
from factorizer_nnunet.report.statistics import RESAMPLES
from factorizer_nnunet.report.study import Group

_LIBRARIES = ("numpy", "scipy", "SimpleITK", "nnunetv2", "torch")


def methods_section(groups: Sequence[Group]) -> str:
    """A list of methods; the scheme's values for empty masks and its rules for lesions as tables."""
    scores = groups[0].scored[0].scores
    settings = scores.settings
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    items = {
        "scoring scheme": ". ".join(filter(None, (settings.get("title", scores.scheme), settings.get("source")))),
        "ranked by": ", ".join(scores.metric(key).title for key in settings.get("ranked_by", ())),
        "intervals": f"95 %, bootstrap over cases, bias-corrected and accelerated, {RESAMPLES} resamples",
        "n of N": "number of cases in which a metric is defined, of all cases",
        "tests": "Wilcoxon's signed-rank test, two-sided, zeros ranked (Pratt); Holm's correction",
        "ranks": f"by the mean in each of {RESAMPLES} resamples of the cases; models with equal means share ranks",
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
    return details("Scores if masks are empty", table(["metric", *(f"{key} empty" for key in keys)], rows))


def _lesions(rules: Mapping[str, Mapping[str, Any]]) -> str:
    if not rules:
        return ""
    names = list(next(iter(rules.values())))
    rows = [
        f"<tr><td>{text_of(region)}</td>{''.join(f'<td>{_shown(rule[name])}</td>' for name in names)}</tr>"
        for region, rule in rules.items()
    ]
    heads = ["region", *(name.replace("_mm3", ", mm³").replace("_", " ") for name in names)]
    return details("Definition of a lesion", table(heads, rows))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return text_of("–" if value in (None, [], "") else value)
