"""Section of the page: how everything on it was computed, and with which software."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

from factorizer_nnunet import __version__
from factorizer_nnunet.evaluation.table import empty_mask_rows, lesion_rule_rows
from factorizer_nnunet.pages.markup import cell, details, table, text_of
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
        "label values": settings.get("label_values", ""),
        "dataset.json": settings.get("dataset_json") or "",
        "geometry of files": "differences were ignored" if settings.get("geometry_ignored") else "",
        "ranked by": ", ".join(scores.metric(key).title for key in settings.get("ranked_by", ())),
        "intervals": f"95 %, bootstrap over cases, bias-corrected and accelerated, {RESAMPLES} resamples",
        "n of N": "number of cases in which a metric is defined, of all cases",
        "tests": "Wilcoxon's signed-rank test, two-sided, zeros ranked (Pratt); Holm's correction of the primary "
        "comparisons; others are exploratory and not corrected",
        "ranks": f"by the mean in each of {RESAMPLES} resamples of the cases; models with equal means share ranks",
        "versions": f"factorizer_nnunet {__version__}, {versions}",
    }
    listed = "".join(f"<dt>{name}</dt><dd>{text_of(text)}</dd>" for name, text in items.items() if text)
    tables = {"Scores if masks are empty": empty_mask_rows(scores), "Definition of a lesion": lesion_rule_rows(scores)}
    return f"<dl>{listed}</dl>" + "".join(
        details(title, table(heads, [f"<tr>{''.join(map(cell, row))}</tr>" for row in body]))
        for title, (heads, *body) in tables.items()
    )
