"""The order in which findings are looked at: those first in which the model contradicts the label far more than usual.

What is usual is learned from the data set itself, whose labels are mostly right: of the largest contradiction in each
case, the size that one case in ten reaches. A finding of evidence e where u is usual scores e / (e + u). Volumes of all
regions are compared with each other, and Dice that borders cost within each region. How sure the model is has already
been weighed voxel by voxel, see ``Opinion.margin``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from factorizer_nnunet.label_check.finding import Finding, Kind

_USUAL_PERCENTILE = 90
_BORDERS = (Kind.SHIFTED, Kind.BORDER)
_LEAST_DICE = 0.05  # usual at least
_LEAST_VOXELS = 10


def ranked(findings: Iterable[Finding], cases: Collection[str]) -> list[Finding]:
    """The findings with their scores, most suspicious first.

    Args:
        findings: of all cases.
        cases: all names, with findings or without.
    """
    everything = list(findings)
    largest: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for one in everything:
        of_case = largest[_group(one)]
        of_case[one.case] = max(of_case.get(one.case, 0.0), one.evidence)
    usual = {
        group: float(np.percentile([*values.values(), *[0.0] * (len(cases) - len(values))], _USUAL_PERCENTILE))
        for group, values in largest.items()
    }
    scored = [replace(one, score=_score(one, usual[_group(one)])) for one in everything]
    return sorted(scored, key=lambda one: (-one.score, one.case, one.kind.value, one.where, one.centre))


def _group(finding: Finding) -> tuple[str, str]:
    """Findings among which evidence is compared."""
    if finding.kind is Kind.FLIPPED:
        return "flip", ""
    return ("border", finding.where) if finding.kind in _BORDERS else ("volume", "")


def _score(finding: Finding, usual: float) -> float:
    return finding.evidence / (finding.evidence + max(usual, _least(finding)))


def _least(finding: Finding) -> float:
    """What is usual at least, so that in nearly perfect data not every voxel is a finding; never 0."""
    if finding.kind in (*_BORDERS, Kind.FLIPPED):
        return _LEAST_DICE
    return _LEAST_VOXELS * finding.volume_ml / finding.voxels
