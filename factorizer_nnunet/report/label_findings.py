"""Findings of the label check as HTML: a table and pictures, which the report and the page of label-check share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from factorizer_nnunet.core.wording import short
from factorizer_nnunet.label_check.finding import CORRECTIONS, Finding, Kind
from factorizer_nnunet.pages.markup import breakable, cell, legend, number, table, text_of
from factorizer_nnunet.report.case_volumes import CaseVolumes
from factorizer_nnunet.report.gallery import picture_cells, pictures_of

_SIDE = 180  # of a picture in pixels
_UNKNOWN = "no file of probabilities next to the prediction"


def findings_table(findings: Sequence[Finding], number_of: Mapping[str, int]) -> str:
    """A row for each finding, in order.

    Args:
        findings: most suspicious first.
        number_of: index of each case in the page's list of cases.
    """
    heads = ["rank", "case", "what may be wrong", "where", "volume in ml", "probability", "score"]
    rows = []
    for rank, one in enumerate(findings, 1):
        opens = f'<button class="open" data-view="{number_of[one.case]}">{text_of(one.case)}</button>'
        sure = None if math.isnan(one.probability) else one.probability
        numbers = number(one.volume_ml, undefined=_UNKNOWN) + number(sure, undefined=_UNKNOWN)
        rows.append(
            f"<tr>{number(rank, str(rank), undefined=_UNKNOWN)}<td>{opens}</td>{cell(one.kind.value)}{cell(one.where)}"
            f"{numbers}{number(one.score, undefined=_UNKNOWN)}</tr>"
        )
    return table(heads, rows, sortable=True)


def finding_figure(
    rank: int, one: Finding, case: CaseVolumes, regions: Mapping[str, Sequence[int]], case_number: int
) -> str:
    """Image, label and the model's segmentation in the planes through a finding.

    Args:
        rank: of the finding, from 1.
        one: the finding.
        case: its volumes: the label, then the model's segmentation.
        regions: label values by name.
        case_number: in the page's list of cases.
    """
    heads = ("image", "label", "model")
    cells = [f'<span class="head">{head}</span>' for head in heads]
    cells += picture_cells(one.case, heads, pictures_of(list(regions.values()), case, _SIDE, one.centre))
    sure = "" if math.isnan(one.probability) else f", probability {one.probability:.2f}"
    return (
        f'<figure class="case"><figcaption><b>{rank}. {breakable(one.case)}</b> '
        f'<span class="why">{text_of(f"{one.kind.value}: {one.where}")}</span> '
        f'<span class="soft">{short(one.volume_ml)} ml{sure}; correct: {text_of(CORRECTIONS[one.kind])}</span>'
        "</figcaption>"
        f'<div class="planes" data-view="{case_number}" role="button" tabindex="0" '
        f'aria-label="open {text_of(one.case)}">{"".join(cells)}</div></figure>'
    )


def gallery_of(figures: Sequence[str], regions: Mapping[str, Sequence[int]]) -> str:
    """Figures of findings below the colours of the regions; "" without figures."""
    if not figures:
        return ""
    return f'{legend(regions)}<div class="gallery" style="--columns:3">{"".join(figures)}</div>'


def counts_of(findings: Sequence[Finding]) -> str:
    """How many findings of each kind there are, as HTML."""
    counts = [(kind.value, sum(one.kind is kind for one in findings)) for kind in Kind]
    items = "".join(f"<li><b>{count}</b>{text_of(name)}</li>" for name, count in counts if count)
    return f'<ul class="numbers">{items}</ul>'
