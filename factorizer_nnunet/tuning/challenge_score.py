"""The score of a challenge as one number of a case, by which settings are compared.

A challenge ranks by several metrics with different units. Each becomes a share of its best value, between 0 and 1, and
the score is their mean: Dice and F1 as they are; distances d in mm as 1 - d / worst, with the value of a missed lesion
as the worst; differences of volumes and of numbers of lesions as 1 - |a - b| / max(a, b). Where neither reference nor
prediction has anything, the share is 1, so that removing the last false lesion is rewarded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from factorizer_nnunet.evaluation.schemes import ScoringScheme

LESION_DISTANCE = "lesion_hd95"
_LESION_WISE = ("lesion_dice", LESION_DISTANCE)
# A difference of two values, by the values.
_DIFFERENCES = {
    "volume_error": ("volume_reference", "volume_prediction"),
    "lesion_count_error": ("lesions_reference", "lesions_prediction"),
}


def metrics_of(scheme: ScoringScheme) -> tuple[str, ...]:
    """The metrics that a challenge ranks by; lesion-wise where its ranking is not confirmed; Dice without a scheme."""
    return scheme.ranked_by or (_LESION_WISE if scheme.rule.dilation else ("dice",))


def score_of(values: Mapping[str, float], metrics: tuple[str, ...], worst_mm: float) -> float:
    """The mean share of a region of a case.

    Args:
        values: by metric, with those that differences are taken of; NaN where undefined.
        metrics: from ``metrics_of``.
        worst_mm: the value of a distance where a lesion is missed.
    """
    return sum(_share(metric, values, worst_mm) for metric in metrics) / len(metrics)


def _share(metric: str, values: Mapping[str, float], worst_mm: float) -> float:
    value = values[metric]
    if math.isnan(value):
        return 1.0
    if metric in _DIFFERENCES:
        largest = max(values[name] for name in _DIFFERENCES[metric])
        return 1 - value / largest if largest else 1.0
    return 1 - min(value, worst_mm) / worst_mm if metric.endswith("hd95") else value
