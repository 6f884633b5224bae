"""What ``tune-postprocessing`` finds: a rule for each region, and what they change on held-out cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.postprocessing.rules import Postprocessing, RegionRule
from factorizer_nnunet.report.statistics import Estimate


@dataclass(frozen=True)
class RegionFinding:
    """What was found for a region of dataset.json.

    Attributes:
        rule: the best on all cases.
        gain: of the mean score over regions, on cases that had no part in the choice.
        agreeing: without how many of the groups of cases the same rule is best.
        beyond_noise: whether the gain is above 0 at a level that is corrected for the number of regions.
        kept: whether it is so, also together with the rules of other regions, and the cases suffice.
    """

    rule: RegionRule
    gain: Estimate
    agreeing: int
    beyond_noise: bool
    kept: bool


@dataclass(frozen=True)
class MetricChange:
    """A metric of a scored region on held-out cases, and the change by all kept rules together."""

    before: Estimate
    after: Estimate
    change: Estimate


@dataclass(frozen=True)
class RuleTuningOutcome:
    """What was found and written.

    Attributes:
        regions: by name in dataset.json.
        changes: by scored region and metric, "score" being the mean share of the metrics.
        num_groups: of the nested cross-validation.
        with_thresholds: whether probabilities were there.
        rules: those that were kept; None if there are none.
        page, numbers: the files; ``written`` is that next to the model, None if nothing was kept.
        warnings: lines for the user.
    """

    regions: Mapping[str, RegionFinding]
    changes: Mapping[str, Mapping[str, MetricChange]]
    num_cases: int
    num_groups: int
    with_thresholds: bool
    rules: Postprocessing | None
    page: Path
    numbers: Path
    written: Path | None
    warnings: tuple[str, ...]
