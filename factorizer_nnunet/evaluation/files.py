"""Write scores to files and read them: scores.csv, lesions.csv, and summary.json, which extends nnU-Net's."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import atomic_folder
from factorizer_nnunet.core.csv_files import csv_text, read_csv
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.evaluation.metrics import VOXELS, Metric
from factorizer_nnunet.evaluation.overlap import dice, iou
from factorizer_nnunet.evaluation.scores import Files, Lesion, Scores, mean_over_cases
from factorizer_nnunet.evaluation.table import markdown

SUMMARY_FILE, SCORES_FILE, LESIONS_FILE, TABLE_FILE = "summary.json", "scores.csv", "lesions.csv", "scores.md"
SCORE_FILES = (SUMMARY_FILE, SCORES_FILE, LESIONS_FILE, TABLE_FILE)
SCORE_COLUMNS = ("case", "region", "metric", "unit", "value")
LESION_COLUMNS = ("case", "region", "volume_ml", "detected")
OURS = "factorizer_nnunet"  # the key of summary.json that nnU-Net does not have
FIX = "Give a folder that factorizer-nnunet evaluate wrote"


def check_target(folder: Path) -> None:
    """Raise a UserError if the folder exists and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists and is not overwritten: remove it or choose another folder")


def write_scores(scores: Scores, folder: Path) -> None:
    """Write all files to a new or empty folder, which appears only when it is complete.

    Raises:
        UserError: the folder is not empty, or cannot be written.
    """
    check_target(folder)
    units = {metric.key: metric.unit for metric in scores.metrics}
    rows = [(case, region, metric, units[metric], float(v)) for (case, region, metric), v in scores.table.items()]
    lesions = [(n.case, n.region, float(n.volume_ml), int(n.detected)) for n in scores.lesions]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as draft:
            (draft / SUMMARY_FILE).write_text(json.dumps(summary_json(scores), indent=4), encoding="utf-8")
            (draft / SCORES_FILE).write_text(csv_text(SCORE_COLUMNS, rows), encoding="utf-8")
            (draft / LESIONS_FILE).write_text(csv_text(LESION_COLUMNS, lesions), encoding="utf-8")
            (draft / TABLE_FILE).write_text(markdown(scores), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error


def read_scores(folder: Path) -> Scores:
    """Read the files of `write_scores`.

    Raises:
        UserError: files are missing, damaged, or from different evaluations.
    """
    content = load_json_object(folder / SUMMARY_FILE, FIX)
    if OURS not in content:
        raise UserError(f"{folder / SUMMARY_FILE} was written by nnU-Net, without distances and lesions. {FIX}")
    ours = content[OURS]
    rows = read_csv(folder / SCORES_FILE, SCORE_COLUMNS, FIX)
    lesions = read_csv(folder / LESIONS_FILE, LESION_COLUMNS, FIX)
    try:
        scores = Scores(
            scheme=ours["scheme"],
            metrics=tuple(Metric(**metric) for metric in ours["metrics"]),
            labels={name: tuple(region["labels"]) for name, region in ours["regions"].items()},
            keys={name: region["key"] for name, region in ours["regions"].items()},
            cases=tuple(ours["cases"]),
            files={case: Files(**files) for case, files in ours["cases"].items()},
            table={(row["case"], row["region"], row["metric"]): float(row["value"] or math.nan) for row in rows},
            lesions=tuple(
                Lesion(row["case"], row["region"], float(row["volume_ml"]), row["detected"] == "1") for row in lesions
            ),
            settings=ours["settings"],
        )
        markdown(scores)  # raises if metrics or settings cannot be shown
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder} contains damaged results ({error!r}). {FIX}") from error
    expected = {(c, r, m.key) for c in scores.cases for r in scores.regions for m in scores.metrics}
    if scores.table.keys() != expected or len(rows) != len(expected):
        raise UserError(f"{folder / SCORES_FILE} and {SUMMARY_FILE} are not from the same evaluation. {FIX}")
    return scores


def summary_json(scores: Scores) -> dict[str, Any]:
    """The content of summary.json: nnU-Net's keys with nnU-Net's meaning under any scheme, and our metrics.

    So "Dice" and "IoU" are NaN where both masks are empty, and "mean" leaves these cases out (nnU-Net 2.8,
    evaluation/evaluate_predictions.py); "dice" and "iou" follow the scheme.
    """
    per_case = {
        case: {scores.keys[region]: _metrics(scores, case, region) for region in scores.regions}
        for case in scores.cases
    }
    names = list(next(iter(next(iter(per_case.values())).values())))
    mean = {
        key: {name: mean_over_cases(np.array([per_case[c][key][name] for c in scores.cases])).mean for name in names}
        for key in (scores.keys[region] for region in scores.regions)
    }
    regions = {r: {"labels": list(scores.labels[r]), "key": scores.keys[r]} for r in scores.regions}
    summary = {r: {m.key: asdict(scores.summary(r, m.key)) for m in scores.metrics} for r in scores.regions}
    return {
        "foreground_mean": {name: float(np.mean([values[name] for values in mean.values()])) for name in names},
        "mean": mean,
        "metric_per_case": [
            {
                "metrics": per_case[case],
                "prediction_file": scores.files[case].prediction,
                "reference_file": scores.files[case].reference,
            }
            for case in scores.cases
        ],
        OURS: {
            "version": __version__,
            "scheme": scores.scheme,
            "settings": dict(scores.settings),
            "metrics": [asdict(metric) for metric in scores.metrics],
            "regions": regions,
            "cases": {case: asdict(scores.files[case]) for case in scores.cases},
            "summary": summary,
        },
    }


def _metrics(scores: Scores, case: str, region: str) -> dict[str, float]:
    """nnU-Net's metrics for a region of a case, and ours."""
    tp, fp, fn, tn = (int(scores.value(case, region, metric.key)) for metric in VOXELS)
    theirs = {"Dice": dice(tp, tp + fn, tp + fp), "IoU": iou(tp, tp + fn, tp + fp)}
    theirs |= {"TP": tp, "FP": fp, "FN": fn, "TN": tn, "n_pred": tp + fp, "n_ref": tp + fn}
    ours = {m.key: scores.value(case, region, m.key) for m in scores.metrics if m not in VOXELS}
    return theirs | ours
