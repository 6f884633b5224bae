"""Results and their scores, sorted into groups that share their cases, so that models can be compared case by case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.metrics import VOXELS, Metric
from factorizer_nnunet.evaluation.scores import Scores
from factorizer_nnunet.report.results import CROSS_VALIDATION, Case, Result
from factorizer_nnunet.report.statistics import Estimate, estimate

_VOXEL_COUNTS = {metric.key for metric in VOXELS}  # in summary.json; nobody reads them on a page


@dataclass(frozen=True, eq=False)
class Scored:
    """A result with its scores and its place in the page's order of models, which decides its colour."""

    result: Result
    scores: Scores
    place: int

    @property
    def title(self) -> str:
        """What the result is called."""
        return self.result.title


@dataclass(frozen=True)
class Group:
    """Results on the same cases and regions."""

    scored: tuple[Scored, ...]
    cases: tuple[str, ...]  # those that all results have, in order
    num_all: int  # cases that any of them has

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions scored, the same for all results."""
        return self.scored[0].scores.regions

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics for people: all but counts of voxels."""
        return tuple(metric for metric in self.scored[0].scores.metrics if metric.key not in _VOXEL_COUNTS)

    @property
    def leading(self) -> tuple[Metric, ...]:
        """Metrics that the scheme ranks by, else Dice and HD95: they get headlines and figures."""
        scores = self.scored[0].scores
        return tuple(scores.metric(key) for key in scores.settings.get("ranked_by") or ("dice", "hd95"))

    @property
    def judged(self) -> tuple[Metric, ...]:
        """Metrics of which more or less is better."""
        return tuple(metric for metric in self.metrics if metric.higher_is_better is not None)

    @property
    def measured(self) -> tuple[Metric, ...]:
        """Those of the judged that are no counts: they are drawn and compared, counts are told in tables."""
        return tuple(metric for metric in self.judged if not metric.is_count)

    @property
    def title(self) -> str:
        """What the cases are, such as "Cross-validation, 100 cases"."""
        kind = "Cross-validation" if self.scored[0].result.kind == CROSS_VALIDATION else "Test cases"
        return f"{kind}, {len(self.cases)} cases"

    def values(self, scored: Scored, region: str, metric: Metric) -> np.ndarray:
        """A metric of the group's cases, (cases,)."""
        return np.array([scored.scores.value(case, region, metric.key) for case in self.cases])

    def estimate(self, scored: Scored, region: str, metric: Metric, fold: str | None = None) -> Estimate:
        """Mean with interval over the group's cases, or over those of one fold."""
        values = self.values(scored, region, metric)
        if fold is not None:
            fold_of = {case.name: case.fold for case in scored.result.cases}
            values = values[[fold_of[case] == fold for case in self.cases]]
        return estimate(values)

    def case_of(self, scored: Scored, name: str) -> Case:
        """The files of a case."""
        return next(case for case in scored.result.cases if case.name == name)


def check_case_sets(results: Sequence[Result], partial: bool) -> list[list[int]]:
    """Places of the results that share their cases, in order; each list becomes a group.

    Results with no case in common are separate if they are of different kinds, such as a cross-validation and a test.

    Raises:
        UserError: results that would be compared on different cases, naming these; all problems at once.
    """
    groups: list[list[int]] = []
    problems: list[str] = []
    for place, result in enumerate(results):
        home = next((group for group in groups if set(results[group[0]].names) & set(result.names)), None)
        if home is None:
            kin = next((group for group in groups if results[group[0]].kind == result.kind), None)
            if kin is not None:
                problems.append(f"{results[kin[0]].folder} and {result.folder} have no case in common")
            groups.append([place])
            continue
        first = results[home[0]]
        home.append(place)
        if not partial:
            problems += [
                f"{here.folder} has no {name}, which {there.folder} has"
                for here, there in ((first, result), (result, first))
                for name in sorted(set(there.names) - set(here.names))
            ]
        here, there = (one.dataset_json.get("labels") for one in (first, result))
        if here != there:
            problems.append(f"{first.folder} and {result.folder} have different labels: {here} and {there}")
    if problems:
        mend = "report them apart, or give --partial to compare the cases that all have"
        raise UserError("\n  ".join([f"these results cannot be compared; {mend}:", *problems]))
    return groups


def build_groups(results: Sequence[Result], scores: Sequence[Scores], places: Sequence[Sequence[int]]) -> list[Group]:
    """Groups of results with their scores, as `check_case_sets` sorted them."""
    groups = []
    for group in places:
        sets = [set(results[place].names) for place in group]
        common = set.intersection(*sets)
        scored = tuple(Scored(results[place], scores[place], place) for place in group)
        cases = tuple(name for name in results[group[0]].names if name in common)
        groups.append(Group(scored, cases, len(set.union(*sets))))
    return groups
