"""How well `predict --quality` tells failed segmentations, on held-out images and corrupted copies of them.

    python -m benchmarks.quality --model MODEL_FOLDER --images imagesTs --labels labelsTs --work WORK --name hippocampus

The model must be trained; it is calibrated first, if it is not. Every step is one of our commands and resumes where it
was stopped. A region of a case has failed if its Dice is below 0.5, or more than 0.2 under the median of the clean
cases. ``--cost 3`` also predicts the clean images three times without and with ``--quality``, in turns. Writes
docs/measured/quality.json, with an entry for each name, and the page next to it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.corruptions import CORRUPTIONS, STRENGTHS, cases_of, corrupt_folder
from benchmarks.output_paths import json_output
from factorizer_nnunet.calibration.calibration_file import read_calibration
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.core.processes import core_count
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.evaluation.overlap import dice_of_regions
from factorizer_nnunet.evaluation.reading import read_labels
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.image_files import case_and_channel

PAGE = Path(__file__).resolve().parents[1] / "docs" / "measured" / "quality.json"
CLEAN = "clean"
_QUALITY = ("--quality", "--viewer-cases", 0)
FAILED, BELOW_MEDIAN = 0.5, 0.2
_LEAD = """\
# Measured: when to trust a segmentation

Written by `python -m benchmarks.quality` (see `--help`): `predict --quality` on held-out images and corrupted copies of
them. A region of a case has failed if its Dice is below 0.5, or more than 0.2 under the median of the clean cases.
AUROC is how often a failed one has more doubt than another one. Error of the estimated Dice and coverage of its
interval are those of clean cases; calibration errors (ECE, before → after) those of out-of-fold cases with
temperature and offset of other cases. Cost is the time of a prediction with `--quality` divided by that of one without,
in CPU seconds, or by the clock on a GPU: medians of predictions in turns.
"""


def auroc(scores: Sequence[float], failed: Sequence[bool]) -> float:
    """The probability that a failed case has a higher score than another one, ties counted half; NaN without both."""
    values, is_failed = np.array(scores), np.array(failed, bool)
    bad, good = values[is_failed], values[~is_failed]
    if not len(bad) or not len(good):
        return math.nan
    return float(np.mean((bad[:, None] > good).astype(float) + 0.5 * (bad[:, None] == good)))


def measured(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All numbers from rows with ``condition``, ``region``, ``dice``, ``estimate``, ``low``, ``high`` and ``doubt``.

    Rows without a Dice, where neither reference nor prediction has the region, are left out.
    """
    known = [row for row in rows if row["dice"] is not None]
    clean = [row for row in known if row["condition"] == CLEAN]
    medians = {name: float(np.median([r["dice"] for r in clean if r["region"] == name])) for name in _regions(clean)}
    failed = [r["dice"] < FAILED or r["dice"] < medians[r["region"]] - BELOW_MEDIAN for r in known]
    doubts = [row["doubt"] for row in known]
    estimated = [row for row in clean if row["estimate"] is not None]
    return {
        "regions_of_cases": len(known),
        "failed": sum(failed),
        "auroc": auroc(doubts, failed),
        "clean": len(clean),
        "estimated_clean": len(estimated),
        "mean_error_clean": _mean([abs(row["dice"] - row["estimate"]) for row in estimated]),
        "coverage_clean": _mean([row["low"] <= row["dice"] <= row["high"] for row in estimated]),
        "median_dice": medians,
        "conditions": {
            name: [_mean([row[of] for row in known if row["condition"] == name]) for of in ("dice", "doubt")]
            for name in dict.fromkeys(row["condition"] for row in known)
        },
    }


def _regions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["region"] for row in rows))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def rows_of(condition: str, predictions: Path, labels: Path) -> list[dict[str, Any]]:
    """The rows of one folder of predictions with --quality."""
    dataset = DatasetJson.read(predictions / "dataset.json")
    rows = []
    for case in json.loads((predictions / "quality.json").read_text())["cases"]:
        name = f"{case['case']}{dataset.file_ending}"
        prediction, reference = (read_labels(folder / name).labels for folder in (predictions, labels))
        dice = dice_of_regions(prediction, reference, dataset.regions, dataset.ignore_label)
        for region, found in case["regions"].items():
            low, high = found["interval"] or (None, None)
            row = {"condition": condition, "case": case["case"], "region": region, "dice": dice[region]}
            doubt = math.inf if found["doubt"] is None else found["doubt"]  # such cases come first
            rows.append({**row, "estimate": found["dice"], "low": low, "high": high, "doubt": doubt})
    return rows


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Calibrate, predict clean and corrupted images, and measure."""
    device = ["-device", args.device]
    folds = ["-f", *args.folds]
    _call("calibrate", "-m", args.model, *folds, *device)
    images = _chosen(args.images, args.work / CLEAN / "images", args.cases)
    to_corrupt = _chosen(images, args.work / "to_corrupt", args.corrupted_cases)
    conditions = [CLEAN, *(f"{kind}_{strength}" for kind, strength in itertools.product(args.kinds, args.strengths))]
    rows: list[dict[str, Any]] = []
    for condition in conditions:
        source, out = args.work / condition / "images", args.work / condition / "predictions"
        if condition != CLEAN and not source.exists():
            kind, strength = condition.rsplit("_", 1)
            corrupt_folder(cases_of(to_corrupt), source, kind, int(strength))
        _call("predict", "-m", args.model, *folds, *device, "-i", source, "-o", out, *_QUALITY)
        rows += rows_of(condition, out, args.labels)
        print(condition, {key: value for key, value in measured(rows).items() if key != "conditions"}, flush=True)
    calibration = read_calibration(args.model)
    assert calibration is not None  # written above
    ece = {name: [one.before.ece, one.after.ece] for name, one in calibration.outputs.items()}
    cases = sum(calibration.num_cases.values())
    predict = ("predict", "-m", args.model, *folds, *device, "-i", images)
    cost = {"cost": costs(predict, args.work / "cost", args.cost, args.device)} if args.cost else {}
    return {
        **measured(rows),
        **cost,
        "ece": ece,
        "calibration_cases": cases,
        "folds": len(args.folds),
        "fold_names": args.folds,
        "model": args.model.name,
        "machine": f"{platform.machine()}, {count_of(core_count(), 'core')}, {args.device}, torch {torch.__version__}",
    }


def _chosen(images: Path, target: Path, count: int | None) -> Path:
    """A folder with the images of the first cases; an interrupted copy is completed."""
    if count is None:
        count = sys.maxsize
    names = sorted(path.name for path in images.iterdir())
    found = {name: case for name in names if (case := case_and_channel(name, ".nii.gz")) is not None}
    cases = sorted({case for case, _ in found.values()})[:count]
    chosen = [name for name, (case, _) in found.items() if case in cases]
    target.mkdir(parents=True, exist_ok=True)
    if {path.name for path in target.iterdir()} - set(chosen):
        raise SystemExit(f"error: {target} has other cases, of an earlier choice: name another --work")
    for name in chosen:
        shutil.copyfile(images / name, target / name)
    return target


def costs(command: Sequence[object], work: Path, repeats: int, device: str) -> dict[str, list[float]]:
    """Seconds that predictions without and with --quality took, in turns; on the CPU those of its cores."""
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(repeats):
        for name, options in (("without", ()), ("with", _QUALITY)):
            shutil.rmtree(work, ignore_errors=True)
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            _call(*command, "-o", work, *options)
            after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            seconds[name].append(cpu if device == "cpu" else wall)
    return seconds


def _call(command: object, *options: object) -> None:
    argv = [sys.executable, "-m", "factorizer_nnunet", str(command), *map(str, options)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page about all data sets."""
    heads = ["data set", "folds", "calibrated with", "regions, failed", "AUROC", "mean error", "coverage of 90 %"]
    rows = [[*heads, "cost", "ECE"]]
    for name, one in results.items():
        ece = ", ".join(f"{region} {before:.3f} → {after:.3f}" for region, (before, after) in one["ece"].items())
        cells = [name, one["folds"], f"{one['calibration_cases']} cases", f"{one['regions_of_cases']}, {one['failed']}"]
        error, covered = "too few cases", "too few cases"
        if one["coverage_clean"] is not None:
            error = f"{one['mean_error_clean']:.3f}"
            covered = f"{one['coverage_clean']:.0%} of {one['estimated_clean']}"
        cost = "–"
        if "cost" in one:
            without, with_quality = (statistics.median(one["cost"][which]) for which in ("without", "with"))
            cost = f"{with_quality / without:.2f}"
        cells += [f"{one['auroc']:.3f}", error, covered, cost, ece]
        rows.append([str(cell) for cell in cells])
    parts = [_LEAD, markdown_table(rows)]
    parts += [_of_conditions(name, one) for name, one in results.items()]
    return "\n".join(parts) + "\n"


def _of_conditions(name: str, one: Mapping[str, Any]) -> str:
    """Dice and doubt of a data set, clean and corrupted."""
    rows = [["images", "mean Dice", "mean doubt"]]
    rows += [[condition, f"{dice:.3f}", f"{doubt:.3f}"] for condition, (dice, doubt) in one["conditions"].items()]
    return (
        f"\n## {name}\n\n{one['model']}, fold {', '.join(one['fold_names'])}. {one['machine']}.\n\n"
        f"{markdown_table(rows, right=True)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="TRAINER__PLANS__CONFIGURATION")
    parser.add_argument("--folds", nargs="+", default=["0", "1", "2", "3", "4"])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for corrupted images and predictions")
    parser.add_argument("--name", required=True, help="of the data set on the page")
    parser.add_argument("--cases", type=int, help="the first cases by name (default: all)")
    parser.add_argument("--corrupted-cases", type=int, help="of these, those to corrupt (default: all)")
    parser.add_argument("--kinds", nargs="+", choices=list(CORRUPTIONS), default=list(CORRUPTIONS))
    parser.add_argument("--strengths", nargs="+", type=int, choices=STRENGTHS, default=list(STRENGTHS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cost", type=int, default=0, metavar="REPEATS", help="also measure the time (default: no)")
    parser.add_argument("--out", type=json_output, default=PAGE, help="JSON file, with the page next to it")
    args = parser.parse_args()
    earlier = read_complete_json(args.out) or {}
    page(earlier)  # before hours of work, what it lacks is an error
    results = {**earlier, args.name: run(args)}
    write_text_atomically(args.out, json.dumps(results, indent=1) + "\n")
    write_text_atomically(args.out.with_suffix(".md"), page(results))
    print(page(results))


if __name__ == "__main__":
    main()
