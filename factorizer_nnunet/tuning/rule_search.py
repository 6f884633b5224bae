"""The search for rules: scores of all candidates, the choice, and what all chosen rules do together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Source, changed_sources, record_sources, stamp_of_value
from factorizer_nnunet.core.json_files import json_or_none
from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.report.statistics import ALPHA, Estimate, estimate
from factorizer_nnunet.tuning.candidate_rules import candidate_rules
from factorizer_nnunet.tuning.nested_choice import Choice, choose, groups_of
from factorizer_nnunet.tuning.rule_case import SCORE, CaseValues, Objective, RuleCase, Rules, TunedCase, mean_score
from factorizer_nnunet.tuning.rule_findings import RegionFinding

_FORMAT = 2  # of saved scores: raised when the same files get others
MIN_CASES = 10  # with fewer, no gain can be told from noise


class RuleSearch:
    """The search on some cases.

    Args:
        cases: at least one.
        objective: what is scored.
        thresholds: whether all cases have probabilities, so that thresholds are compared, too.
        saved: folder for the scores of each case, which an interrupted search resumes from.
        num_processes: number of cases at the same time.
    """

    def __init__(
        self, cases: Sequence[TunedCase], objective: Objective, thresholds: bool, saved: Path, num_processes: int
    ) -> None:
        self.cases, self.objective, self.thresholds = cases, objective, thresholds
        self.groups = groups_of([case.fold for case in cases])
        self._processes, self._saved = num_processes, saved
        self._candidates = candidate_rules(thresholds)

    def run(self) -> tuple[dict[str, RegionFinding], list[CaseValues], list[CaseValues]]:
        """Findings by region, and the values of each case before and after with the rules chosen without its group."""
        scores = self._candidate_scores()
        choices = {name: choose(one, self.groups) for name, one in scores.items()}
        gains = {name: estimate(choice.gains) for name, choice in choices.items()}
        enough = len(self.cases) >= MIN_CASES
        beyond_noise = {name for name, choice in choices.items() if self._is_beyond_noise(choice, len(choices))}
        kept = [name for name in choices if enough and name in beyond_noise and choices[name].final > 0]
        before = self._values(choices, [])
        after = before
        while kept:
            after = self._values(choices, kept)
            dropped = self._to_drop(kept, gains, before, after)
            if dropped is None:
                break
            kept.remove(dropped)
            after = before
        findings = {
            name: RegionFinding(
                self._candidates[choice.final], gains[name], choice.agreeing, name in beyond_noise, name in kept
            )
            for name, choice in choices.items()
        }
        return findings, before, after

    @staticmethod
    def _is_beyond_noise(choice: Choice, regions: int) -> bool:
        """Whether a choice gains beyond noise; Bonferroni's correction, since every region is tested."""
        return estimate(choice.gains, 1 - ALPHA / regions).low > 0

    def _to_drop(
        self,
        kept: Sequence[str],
        gains: Mapping[str, Estimate],
        before: Sequence[CaseValues],
        after: Sequence[CaseValues],
    ) -> str | None:
        """The weakest rule, if all together gain nothing beyond noise, or make a region worse beyond it."""
        scores = [np.array([mean_score(one) for one in values]) for values in (before, after)]
        worse = [
            name
            for name in self.objective.regions.labels
            if estimate(column(after, name, SCORE) - column(before, name, SCORE)).high < 0
        ]
        if estimate(scores[1] - scores[0]).low > 0 and not worse:
            return None
        return min(kept, key=lambda name: gains[name].low)

    def _candidate_scores(self) -> dict[str, np.ndarray]:
        """The mean score over regions of each case with each candidate, (cases, candidates), by region."""
        names = list(self.objective.dataset.regions)
        work = partial(_case_scores, objective=self.objective, thresholds=self.thresholds, folder=self._saved)
        found, problems = {}, []
        for name, scores, problem in map_unordered(work, self.cases, self._processes, "candidates"):
            found[name] = scores
            problems += [problem] if problem else []
        if problems:
            raise UserError("\n  ".join(["postprocessing cannot be tuned on these cases:", *sorted(problems)]))
        rows = [found[case.name] for case in self.cases]
        return {name: np.array([row[name] for row in rows]) for name in names}

    def _values(self, choices: Mapping[str, Choice], kept: Sequence[str]) -> list[CaseValues]:
        """The values of each case with the rules that were chosen without its group."""
        tasks = [
            (case, {name: self._candidates[choices[name].by_group[group]] for name in kept})
            for case, group in zip(self.cases, self.groups, strict=True)
        ]
        work = partial(_case_values, objective=self.objective, thresholds=self.thresholds)
        found = dict(map_unordered(work, tasks, self._processes, "together" if kept else "before"))
        return [found[case.name] for case in self.cases]


def _case_scores(
    case: TunedCase, objective: Objective, thresholds: bool, folder: Path
) -> tuple[str, dict[str, list[float]], str | None]:
    """Scores by region of all candidates, saved until its files change; and the problem that prevents them."""
    file, record = folder / f"{case.name}.json", folder / "sources" / f"{case.name}.json"
    candidates = candidate_rules(thresholds)
    of_objective = [objective.dataset.content, repr(objective.regions), objective.ignore_geometry]
    settings = [__version__, _FORMAT, *of_objective, [asdict(one) for one in candidates]]
    probabilities = case.probabilities if thresholds else None
    sources: dict[str, Source] = {"reference": case.reference, "prediction": case.prediction}
    sources |= {"settings": stamp_of_value(settings)}
    sources |= {} if probabilities is None else {"probabilities": probabilities}
    try:
        if changed_sources(record, sources, {"scores": file}) == {}:
            saved = json_or_none(file)
            if isinstance(saved, dict) and saved.keys() == objective.dataset.regions.keys():
                return case.name, saved, None
        loaded = RuleCase(case, objective, thresholds)
        scores = {name: [loaded.score({name: rule}) for rule in candidates] for name in objective.dataset.regions}
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(file, json.dumps(scores))
        record_sources(record, sources, {"scores": file})
    except OSError as error:
        return case.name, {}, str(error)
    return case.name, scores, None


def _case_values(task: tuple[TunedCase, Rules], objective: Objective, thresholds: bool) -> tuple[str, CaseValues]:
    case, rules = task
    return case.name, RuleCase(case, objective, thresholds and bool(rules)).values(rules)


def column(values: Sequence[CaseValues], region: str, metric: str) -> np.ndarray:
    """A metric of a scored region in all cases, (cases,)."""
    return np.array([one[region][metric] for one in values])
