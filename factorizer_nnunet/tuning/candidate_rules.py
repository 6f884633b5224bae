"""The rules among which ``tune-postprocessing`` chooses for each region: every combination of a few values."""

from __future__ import annotations

import itertools

from factorizer_nnunet.postprocessing.rules import DEFAULT_THRESHOLD, RegionRule

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
MIN_LESIONS_MM3 = (0.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
MAX_OUTPUTS = 16  # of a network whose thresholds are tuned: all probabilities of a case are in memory


def candidate_rules(with_thresholds: bool) -> list[RegionRule]:
    """All candidates, those that change least first: of equally good ones, the first is chosen."""
    thresholds = THRESHOLDS if with_thresholds else (DEFAULT_THRESHOLD,)
    components = [(size, False) for size in MIN_LESIONS_MM3] + [(0.0, True)]
    rules = [
        RegionRule(threshold=threshold, min_lesion_mm3=size, fill_holes=fills, largest_only=largest)
        for threshold, fills, (size, largest) in itertools.product(thresholds, (False, True), components)
    ]
    return sorted(rules, key=lambda rule: (rule.cost, abs(rule.threshold - DEFAULT_THRESHOLD), rule.min_lesion_mm3))
