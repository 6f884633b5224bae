"""Scores to files and back: scores.csv, lesions.csv, and summary.json as nnU-Net writes it, with more in it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import atomic_folder
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.evaluation.metrics import VOXELS, Metric
from factorizer_nnunet.evaluation.scores import Files, Lesion, Score, Scores
from factorizer_nnunet.evaluation.table import markdown

SUMMARY_FILE, SCORES_FILE, LESIONS_FILE, TABLE_FILE = "summary.json", "scores.csv", "lesions.csv", "scores.md"
SCORE_COLUMNS = ("case", "region", "metric", "unit", "value")
LESION_COLUMNS = ("case", "region", "volume_ml", "detected")
OURS = "factorizer_nnunet"  # what nnU-Net does not know in summary.json
MEND = "Give a folder that factorizer-nnunet evaluate wrote"


def check_target(folder: Path) -> None:
    """Refuse a folder that something is in already; UserError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already and is not overwritten: remove it or choose another")


def write_scores(scores: Scores, folder: Path) -> None:
    """Write all files to a new or empty folder, which appears whole.

    Raises:
        UserError: something is in the folder, or it cannot be written.
    """
    check_target(folder)
    units = {metric.key: metric.unit for metric in scores.metrics}
    rows = [(r.case, r.region, r.metric, units[r.metric], _number(r.value)) for r in scores.rows]
    lesions = [(n.case, n.region, _number(n.volume_ml), int(n.detected)) for n in scores.lesions]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as draft:
            (draft / SUMMARY_FILE).write_text(json.dumps(summary_json(scores), indent=4), encoding="utf-8")
            (draft / SCORES_FILE).write_text(_csv(SCORE_COLUMNS, rows), encoding="utf-8")
            (draft / LESIONS_FILE).write_text(_csv(LESION_COLUMNS, lesions), encoding="utf-8")
            (draft / TABLE_FILE).write_text(markdown(scores), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error


def read_scores(folder: Path) -> Scores:
    """Read what `write_scores` wrote.

    Raises:
        UserError: files are missing, damaged, or not of one evaluation.
    """
    content = load_json_object(folder / SUMMARY_FILE, MEND)
    if OURS not in content:
        raise UserError(f"{folder / SUMMARY_FILE} is nnU-Net's own, without distances and lesions. {MEND}")
    ours = content[OURS]
    try:
        rows = tuple(
            Score(row["case"], row["region"], row["metric"], float(row["value"] or math.nan))
            for row in _read_csv(folder / SCORES_FILE, SCORE_COLUMNS)
        )
        lesions = tuple(
            Lesion(row["case"], row["region"], float(row["volume_ml"]), row["detected"] == "1")
            for row in _read_csv(folder / LESIONS_FILE, LESION_COLUMNS)
        )
        scores = Scores(
            scheme=ours["scheme"],
            metrics=tuple(Metric(**metric) for metric in ours["metrics"]),
            regions=tuple(ours["regions"]),
            labels={name: tuple(region["labels"]) for name, region in ours["regions"].items()},
            keys={name: region["key"] for name, region in ours["regions"].items()},
            cases=tuple(ours["cases"]),
            files={case: Files(**files) for case, files in ours["cases"].items()},
            rows=rows,
            lesions=lesions,
            settings=ours["settings"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder} holds damaged results ({error!r}). {MEND}") from error
    expected = {(c, r, m.key) for c in scores.cases for r in scores.regions for m in scores.metrics}
    if {(row.case, row.region, row.metric) for row in rows} != expected or len(rows) != len(expected):
        raise UserError(f"{folder / SCORES_FILE} and {SUMMARY_FILE} are not of one evaluation. {MEND}")
    return scores


def summary_json(scores: Scores) -> dict[str, Any]:
    """The content of summary.json: nnU-Net's keys with nnU-Net's meaning, whatever the scheme, and ours beside them.

    So Dice and IoU are NaN where both masks are empty, and "mean" leaves these cases out (nnU-Net 2.8,
    evaluation/evaluate_predictions.py); "dice" and "iou" follow the scheme.
    """
    per_case = {
        case: {scores.keys[region]: _metrics(scores, case, region) for region in scores.regions}
        for case in scores.cases
    }
    names = list(next(iter(next(iter(per_case.values())).values())))
    mean = {
        key: {name: _mean(per_case[case][key][name] for case in scores.cases) for name in names}
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
    """nnU-Net's entries for a region of a case, and ours."""
    tp, fp, fn, tn = (int(scores.value(case, region, metric.key)) for metric in VOXELS)
    theirs = {
        "Dice": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else math.nan,
        "IoU": tp / (tp + fp + fn) if tp + fp + fn else math.nan,
        **{"TP": tp, "FP": fp, "FN": fn, "TN": tn, "n_pred": tp + fp, "n_ref": tp + fn},
    }
    ours = {m.key: scores.value(case, region, m.key) for m in scores.metrics if m not in VOXELS}
    return theirs | ours


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _number(value: float) -> str:
    """Shortest text that reads back as the same number; nothing for NaN."""
    return "" if math.isnan(value) else repr(float(value))


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}. {MEND}") from error
    if tuple(reader.fieldnames or ()) != tuple(columns):
        raise UserError(f"{path} has the columns {reader.fieldnames}, not {', '.join(columns)}. {MEND}")
    return rows
