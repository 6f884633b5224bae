"""Nested cross-validation: settings are chosen on some cases, and their gain is estimated on others.

For each group of cases, the best candidate of all other groups is applied to it; the differences that this makes are of
cases that had no part in the choice. The final candidate is the best on all cases; its gain is that estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MIN_GROUPS = 3  # of folds; with fewer, cases are divided otherwise
_GROUPS = 5
_TIE = 1e-9


@dataclass(frozen=True)
class Choice:
    """A candidate by its number.

    Attributes:
        final: the best on all cases.
        by_group: the best on the cases of all other groups.
        gains: score of each case with the candidate of its group minus that with candidate 0, (cases,).
    """

    final: int
    by_group: Mapping[str, int]
    gains: np.ndarray

    @property
    def agreeing(self) -> int:
        """The number of groups without which the same candidate is best."""
        return sum(number == self.final for number in self.by_group.values())


def choose(scores: np.ndarray, groups: Sequence[str]) -> Choice:
    """Choose a candidate.

    Args:
        scores: (cases, candidates); candidate 0 changes nothing, and of equally good ones the first is chosen.
        groups: the group of each case.
    """
    names = np.array(groups)
    by_group = {group: _best(scores[names != group]) for group in sorted(set(groups))}
    gains = np.array([row[by_group[group]] - row[0] for row, group in zip(scores, groups, strict=True)])
    return Choice(_best(scores), by_group, gains)


def groups_of(folds: Sequence[str]) -> list[str]:
    """The group of each case: its fold, or with fewer than three folds one of five groups in turn."""
    if len(set(folds)) >= MIN_GROUPS:
        return list(folds)
    return [f"part {number % _GROUPS}" for number in range(len(folds))]


def _best(scores: np.ndarray) -> int:
    means = scores.mean(axis=0)
    return int(np.flatnonzero(means >= means.max() - _TIE)[0])
