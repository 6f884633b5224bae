"""Score many cases: pairs of label files, or the pairs found in two folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.path_names import component_problem
from factorizer_nnunet.core.wording import count_of, list_of_problems
from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.evaluation.case import TOLERANCES_MM, CaseScores, score_arrays
from factorizer_nnunet.evaluation.metrics import metrics_for
from factorizer_nnunet.evaluation.pairs import CasePair, labels_in, pairs_in_folders, problems_of
from factorizer_nnunet.evaluation.reading import read_labels
from factorizer_nnunet.evaluation.regions import Regions, regions_of
from factorizer_nnunet.evaluation.schemes import NONE, ScoringScheme
from factorizer_nnunet.evaluation.scores import Files, Lesion, Scores
from factorizer_nnunet.evaluation.unfinished import saved_or_computed, stamp_of
from factorizer_nnunet.nnunet.dataset_json import DatasetJson


def evaluate_folder(
    predictions: Path,
    references: Path,
    dataset: DatasetJson | None = None,
    scheme: ScoringScheme = NONE,
    tolerances_mm: tuple[float, ...] = TOLERANCES_MM,
    num_processes: int = 1,
    unfinished: Path | None = None,
    only_common: bool = False,
    ignore_geometry: bool = False,
) -> Scores:
    """Score all label files of two folders that have the same name; see `evaluate_pairs` for the other arguments.

    Args:
        predictions: such as the output of nnUNetv2_predict; other files in it are not read.
        references: such as labelsTr.
        only_common: leave out cases that only one of the folders has, instead of raising an error.

    Raises:
        UserError: invalid arguments or files.
    """
    pairs, missing = pairs_in_folders(predictions, references)
    refused = "" if only_common or not missing else _in_one_folder(missing, len(pairs))
    scores = evaluate_pairs(pairs, dataset, scheme, tolerances_mm, num_processes, unfinished, ignore_geometry, refused)
    return replace(scores, settings={**scores.settings, "cases_in_one_folder_only": sorted(missing)})


def _in_one_folder(missing: Mapping[str, str], in_both: int) -> str:
    found, others = count_of(len(missing), "case"), count_of(in_both, "case")
    fix = f"Add or remove files, or score the {others} in both folders with --only-common"
    return "\n  ".join([f"{found} in one folder only, nothing was scored. {fix}:", *missing.values()])


def evaluate_pairs(
    pairs: Sequence[CasePair],
    dataset: DatasetJson | None = None,
    scheme: ScoringScheme = NONE,
    tolerances_mm: tuple[float, ...] = TOLERANCES_MM,
    num_processes: int = 1,
    unfinished: Path | None = None,
    ignore_geometry: bool = False,
    refused: str = "",
) -> Scores:
    """Score pairs of label files, wherever they are. All files are checked before the first is scored.

    Args:
        pairs: the cases, with different names.
        dataset: dataset.json, which names labels or regions; None makes every label value found in the files a region.
        scheme: how to score, such as `scheme_named("brats2023-gli")`.
        tolerances_mm: of surface Dice.
        num_processes: number of cases scored at the same time.
        unfinished: folder in which scores of single cases are saved, and reused if their files have not changed.
        ignore_geometry: score files of the same shape voxel by voxel, with the voxel size of the reference, even if
            they say that their voxels lie in different places.
        refused: why nothing may be scored, known before the files were checked; raised with what is wrong with them.

    Raises:
        UserError: invalid arguments, or files that cannot be scored; all problems with files in one message.
    """
    if not pairs or len({pair.case for pair in pairs}) < len(pairs):
        raise UserError("no cases to score" if not pairs else "two pairs have the same case name: names must differ")
    names = [f"{pair.prediction}: its name {problem}" for pair in pairs if (problem := component_problem(pair.case))]
    if names:
        raise UserError("\n  ".join(["these files cannot be scored, rename them:", *names]))
    metrics = metrics_for(tolerances_mm)
    needs_values = dataset is None and scheme.regions is None
    check = partial(_check, pairs, num_processes=num_processes, ignore_geometry=ignore_geometry, refused=refused)
    found = _values_in(pairs, num_processes) if needs_values else frozenset()
    if needs_values and not found - {0}:  # perhaps since no file can be read, which is then reported
        check(Regions({}, {}, None, scheme=scheme))
    regions = regions_of(dataset, scheme, found)
    scheme = regions.scheme
    check(regions)
    score = partial(_score, regions=regions, scheme=scheme, tolerances_mm=tolerances_mm, unfinished=unfinished)
    results = dict(map_unordered(score, pairs, num_processes, "scoring"))
    return Scores(
        scheme=scheme.key,
        metrics=metrics,
        labels=regions.labels,
        keys=regions.keys,
        cases=tuple(pair.case for pair in pairs),
        files={pair.case: Files(str(pair.reference), str(pair.prediction)) for pair in pairs},
        table={
            (pair.case, region, metric.key): results[pair.case][region].values[metric.key]
            for pair in pairs
            for region in regions.labels
            for metric in metrics
        },
        lesions=tuple(
            Lesion(pair.case, region, volume_ml, detected)
            for pair in pairs
            for region in regions.labels
            for volume_ml, detected in results[pair.case][region].lesions
        ),
        settings=_settings(scheme, regions, dataset, ignore_geometry),
    )


def _values_in(pairs: Sequence[CasePair], num_processes: int) -> frozenset[int]:
    """Label values of all files."""
    return frozenset().union(*map_unordered(labels_in, pairs, num_processes, "looking for labels"))


def _check(
    pairs: Sequence[CasePair], regions: Regions, num_processes: int, ignore_geometry: bool, refused: str
) -> None:
    check = partial(problems_of, declared=regions.declared, ignore=regions.ignore, ignore_geometry=ignore_geometry)
    problems = sorted(text for texts in map_unordered(check, pairs, num_processes, "checking") for text in texts)
    listed = list_of_problems(problems, "with label files, nothing was scored") if problems else ""
    if refused or listed:
        raise UserError("\n".join(filter(None, [refused, listed])))


def _score(
    pair: CasePair, regions: Regions, scheme: ScoringScheme, tolerances_mm: tuple[float, ...], unfinished: Path | None
) -> tuple[str, CaseScores]:
    """The name and the scores of a case."""

    def compute() -> CaseScores:
        prediction, reference = read_labels(pair.prediction), read_labels(pair.reference)
        arrays = prediction.labels, reference.labels
        return score_arrays(*arrays, reference.grid.spacing, regions.labels, scheme, tolerances_mm, regions.ignore)

    if unfinished is None:
        return pair.case, compute()
    inputs = repr((stamp_of(pair.reference), stamp_of(pair.prediction), regions, scheme, tolerances_mm))
    return pair.case, saved_or_computed(unfinished / f"{pair.case}.json", inputs, compute)


def _settings(
    scheme: ScoringScheme, regions: Regions, dataset: DatasetJson | None, ignore_geometry: bool
) -> dict[str, Any]:
    """Everything needed to repeat the evaluation, as JSON values."""
    settings = {
        "title": scheme.title,
        "source": scheme.source,
        "ranked_by": list(scheme.ranked_by),
        "lesions": {name: asdict(scheme.rule_of(labels)) for name, labels in regions.labels.items()},
        "empty_masks": {metric: asdict(values) for metric, values in scheme.empty.items()},
        "ignored_label": regions.ignore,
        "label_values": regions.meaning,
        "dataset_json": None if dataset is None else str(dataset.path),
        "geometry_ignored": ignore_geometry,
        "cases_in_one_folder_only": [],
    }
    return json.loads(json.dumps(settings))  # tuples become lists, as when they are read back
