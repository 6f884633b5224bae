"""Results and their scores, in groups with the same cases, so that models can be compared case by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.metrics import VOXELS, Metric
from factorizer_nnunet.evaluation.scores import Scores
from factorizer_nnunet.nnunet.dataset_json import LABELS_KEY
from factorizer_nnunet.report.results import CROSS_VALIDATION, Result, ResultCase
from factorizer_nnunet.report.statistics import Estimate, estimate

_VOXEL_COUNTS = {metric.key for metric in VOXELS}  # in summary.json, but not on the page


@dataclass(frozen=True, eq=False)
class Scored:
    """A result with its scores and its index among all results, which decides its colour."""

    result: Result
    scores: Scores
    place: int

    @property
    def title(self) -> str:
        """The name of the result on the page."""
        return self.result.title


@dataclass(frozen=True)
class Group:
    """Results with the same cases and regions."""

    scored: tuple[Scored, ...]
    cases: tuple[str, ...]  # those that all results have, in order
    num_all: int  # cases that any of them has
    number_of: Mapping[str, int]  # index of each case in the page's list of all cases

    @property
    def regions(self) -> tuple[str, ...]:
        """The scored regions, the same for all results."""
        return self.scored[0].scores.regions

    @property
    def numbers(self) -> list[int]:
        """Index of each of the group's cases in the page's list."""
        return [self.number_of[case] for case in self.cases]

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics except voxel counts."""
        return tuple(metric for metric in self.scored[0].scores.metrics if metric.key not in _VOXEL_COUNTS)

    @property
    def leading(self) -> tuple[Metric, ...]:
        """The metrics that the scheme ranks by, else Dice and HD95; they are in the overview and in figures."""
        scores = self.scored[0].scores
        return tuple(scores.metric(key) for key in scores.settings.get("ranked_by") or ("dice", "hd95"))

    @property
    def primary(self) -> tuple[Metric, ...]:
        """The metrics by which models are compared with a correction; all other comparisons are exploratory."""
        return tuple(metric for metric in self.leading if metric in self.measured)

    @property
    def judged(self) -> tuple[Metric, ...]:
        """Metrics for which higher or lower is better."""
        return tuple(metric for metric in self.metrics if metric.higher_is_better is not None)

    @property
    def measured(self) -> tuple[Metric, ...]:
        """Judged metrics that are not counts; they are drawn and compared, counts are only in tables."""
        return tuple(metric for metric in self.judged if not metric.is_count)

    @property
    def title(self) -> str:
        """Such as "Cross-validation, 100 cases"."""
        kind = "Cross-validation" if self.scored[0].result.kind == CROSS_VALIDATION else "Test cases"
        return f"{kind}, {len(self.cases)} cases"

    def values(self, scored: Scored, region: str, metric: str) -> np.ndarray:
        """A metric, given by its key, of the group's cases, (cases,)."""
        return np.array([scored.scores.value(case, region, metric) for case in self.cases])

    def estimate(self, scored: Scored, region: str, metric: Metric, fold: str | None = None) -> Estimate:
        """Mean with interval over the group's cases, or over those of one fold."""
        values = self.values(scored, region, metric.key)
        if fold is not None:
            fold_of = {case.name: case.fold for case in scored.result.cases}
            values = values[[fold_of[case] == fold for case in self.cases]]
        return estimate(values)

    def case_of(self, scored: Scored, name: str) -> ResultCase:
        """The files of a case."""
        return next(case for case in scored.result.cases if case.name == name)


def check_case_sets(results: Sequence[Result], partial: bool) -> list[list[int]]:
    """Group the indices of results that share cases.

    Results without a common case are reported separately if they are of different kinds, such as a cross-validation
    and a test.

    Raises:
        UserError: results to compare have different cases or labels; all problems in one message.
    """
    groups: list[list[int]] = []
    problems: list[str] = []
    for place, result in enumerate(results):
        home = next((group for group in groups if set(results[group[0]].names) & set(result.names)), None)
        if home is None:
            same_kind = next((group for group in groups if results[group[0]].kind == result.kind), None)
            if same_kind is not None:
                problems.append(f"{results[same_kind[0]].folder} and {result.folder} have no case in common")
            groups.append([place])
            continue
        first = results[home[0]]
        home.append(place)
        if not partial:
            problems += [
                f"{one.folder} has no {name}, which {other.folder} has"
                for one, other in ((first, result), (result, first))
                for name in sorted(set(other.names) - set(one.names))
            ]
        first_labels, labels = (one.dataset.content.get(LABELS_KEY) for one in (first, result))
        if first_labels != labels:
            problems.append(f"{first.folder} and {result.folder} have different labels: {first_labels} and {labels}")
    if problems:
        fix = "report them separately, or give --partial to compare the cases that all have"
        raise UserError("\n  ".join([f"these results cannot be compared; {fix}:", *problems]))
    return groups


def build_groups(results: Sequence[Result], scores: Sequence[Scores], places: Sequence[Sequence[int]]) -> list[Group]:
    """Groups of results with their scores, from the indices of `check_case_sets`."""
    sets = [[set(results[place].names) for place in group] for group in places]
    common = [set.intersection(*names) for names in sets]
    number_of = {name: number for number, name in enumerate(sorted(set().union(*common)))}
    return [
        Group(
            scored=tuple(Scored(results[place], scores[place], place) for place in group),
            cases=tuple(name for name in results[group[0]].names if name in shared),
            num_all=len(set().union(*names)),
            number_of=number_of,
        )
        for group, names, shared in zip(places, sets, common, strict=True)
    ]
