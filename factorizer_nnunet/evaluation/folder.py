"""Score a folder of predictions against a folder of references."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.core.worker_pool import in_processes
from factorizer_nnunet.evaluation.case import RegionScores, score_case
from factorizer_nnunet.evaluation.empty import changed
from factorizer_nnunet.evaluation.lesions import LesionRule
from factorizer_nnunet.evaluation.metrics import metrics_for
from factorizer_nnunet.evaluation.reading import Pair, labels_in, pairs_in, problems_of, read_labels
from factorizer_nnunet.evaluation.regions import Regions, regions_of
from factorizer_nnunet.evaluation.schemes import NONE, Scheme, scheme_named
from factorizer_nnunet.evaluation.scores import Files, Lesion, Score, Scores
from factorizer_nnunet.evaluation.unfinished import kept_or_computed

TOLERANCES_MM = (1.0, 2.0)  # of surface Dice
DATASET_JSON = "dataset.json"


@dataclass(frozen=True)
class _Task:
    """One case to be scored, ready to be sent to another process."""

    pair: Pair
    regions: Regions
    scheme: Scheme
    tolerances_mm: tuple[float, ...]
    kept: Path | None  # folder for the scores of single cases

    @property
    def inputs(self) -> str:
        """All that the scores depend on; files by place, size and time of change."""
        files = [path.resolve() for path in (self.pair.reference, self.pair.prediction)]
        stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return repr((stamps, self.regions, self.scheme, self.tolerances_mm))


def evaluate_folder(
    predictions: Path,
    references: Path,
    dataset_json: Mapping[str, Any] | None = None,
    scheme: str = NONE.key,
    num_processes: int = 1,
    tolerances_mm: tuple[float, ...] = TOLERANCES_MM,
    only_common: bool = False,
    lesion_rule: LesionRule | None = None,
    empty: Iterable[str] = (),
    kept: Path | None = None,
) -> Scores:
    """Scores of all cases; every file is checked before the first is scored.

    Args:
        predictions: folder of label files, as nnUNetv2_predict writes them; what else is in it is not looked at.
        references: folder of label files with the same names, such as labelsTr.
        dataset_json: content of the data set's dataset.json, which names labels or regions; None takes every label
            value found as a region of its own.
        scheme: a key of `SCHEMES`.
        num_processes: how many cases are scored at a time.
        tolerances_mm: of surface Dice.
        only_common: leave out cases that only one of the folders has, instead of refusing.
        lesion_rule: what is a lesion and when it is found; only without a scheme.
        empty: changes to what empty masks are worth, such as "dice:both=1"; only without a scheme.
        kept: a folder in which scores of single cases are put and, if their files have not changed, found again.

    Raises:
        UserError: problems with arguments or files, those of files all in one message.
    """
    metrics = metrics_for(tolerances_mm)
    chosen = _scheme(scheme, lesion_rule, tuple(empty))
    pairs, alone = pairs_in(predictions, references, only_common)
    found: frozenset[int] = frozenset()
    if dataset_json is None and chosen.regions is None:
        found = found.union(*in_processes(labels_in, pairs, num_processes, "looking for labels"))
    regions = regions_of(dataset_json, chosen, found)
    _check(pairs, regions, num_processes)
    tasks = [_Task(pair, regions, chosen, tolerances_mm, kept) for pair in pairs]
    results = dict(in_processes(_score, tasks, num_processes, "scoring"))
    rows = tuple(
        Score(pair.case, region, metric.key, results[pair.case][region].values[metric.key])
        for pair in pairs
        for region in regions.labels
        for metric in metrics
    )
    lesions = tuple(
        Lesion(pair.case, region, volume_ml, detected)
        for pair in pairs
        for region in regions.labels
        for volume_ml, detected in results[pair.case][region].lesions
    )
    return Scores(
        scheme=chosen.key,
        metrics=metrics,
        regions=tuple(regions.labels),
        labels=regions.labels,
        keys=regions.keys,
        cases=tuple(pair.case for pair in pairs),
        files={pair.case: Files(str(pair.reference), str(pair.prediction)) for pair in pairs},
        rows=rows,
        lesions=lesions,
        settings=_settings(chosen, regions, alone),
    )


def find_dataset_json(predictions: Path, references: Path) -> dict[str, Any] | None:
    """The dataset.json that belongs to two folders: beside predictions, above them (a fold) or above labelsTr."""
    for folder in (predictions, references.parent, predictions.parent.parent):
        if (folder / DATASET_JSON).is_file():
            return load_json_object(folder / DATASET_JSON, "Give another one with --dataset-json")
    return None


def _scheme(name: str, rule: LesionRule | None, empty: tuple[str, ...]) -> Scheme:
    scheme = scheme_named(name)
    if scheme is not NONE and (rule is not None or empty):
        raise UserError(
            f"the scheme {name} says itself what a lesion is and what empty masks are worth: change these without it"
        )
    return replace(scheme, rule=rule or scheme.rule, empty=changed(scheme.empty, empty))


def _check(pairs: list[Pair], regions: Regions, num_processes: int) -> None:
    check = partial(problems_of, declared=regions.declared, ignore=regions.ignore)
    problems = sorted(text for texts in in_processes(check, pairs, num_processes, "checking") for text in texts)
    if problems:
        lines = "\n".join(f"  {text}" for text in problems)
        raise UserError(f"{count_of(len(problems), 'problem')} with label files, nothing was scored:\n{lines}")


def _score(task: _Task) -> tuple[str, dict[str, RegionScores]]:
    case, compute = task.pair.case, partial(_computed, task)
    return case, compute() if task.kept is None else kept_or_computed(task.kept / f"{case}.json", task.inputs, compute)


def _computed(task: _Task) -> dict[str, RegionScores]:
    reference, prediction = read_labels(task.pair.reference), read_labels(task.pair.prediction)
    return score_case(
        reference.labels,
        prediction.labels,
        reference.grid.spacing,
        task.regions.labels,
        task.scheme,
        task.tolerances_mm,
        task.regions.ignore,
    )


def _settings(scheme: Scheme, regions: Regions, alone: tuple[str, ...]) -> dict[str, Any]:
    """What a reader needs to repeat the evaluation, fit for JSON."""
    settings = {
        "title": scheme.title,
        "source": scheme.source,
        "ranked_by": list(scheme.ranked_by),
        "lesions": {name: asdict(scheme.rule_of(labels)) for name, labels in regions.labels.items()},
        "empty_masks": {metric: asdict(values) for metric, values in scheme.empty.items()},
        "ignored_label": regions.ignore,
        "cases_in_one_folder_only": list(alone),
    }
    return json.loads(json.dumps(settings))  # lists for tuples, as they will be read back
