"""Whether `tune-postprocessing` finds rules that are known to be best, and harms nothing where there are none.

    python -m benchmarks.postprocessing --out docs/measured/postprocessing.json

Made-up cases have an organ and lesions. What a model says of them is made from the labels: ``flawed`` models are wrong
in ways that a known rule undoes (an organ with holes and a second piece, lesions that only a low threshold finds in
full, and specks); ``noisy`` models are wrong in ways that no rule undoes. Rules are tuned on half of the cases; the
others, which tuning has never seen, show what they are worth.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import distance_transform_edt, gaussian_filter

from benchmarks.output_paths import output_file
from factorizer_nnunet.evaluation.regions import regions_of
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.report.sources import Sources
from factorizer_nnunet.report.statistics import estimate
from factorizer_nnunet.tuning.rule_case import Objective, RuleCase, TunedCase
from factorizer_nnunet.tuning.tune_rules import RuleTuningRequest, tune_rules

NAME, MODEL = "Dataset701_MadeUp", "nnUNetTrainerFactorizer__nnUNetFactorizerPlans__3d_fullres"
SHAPE, SPACING_MM = (40, 36, 20), (1.0, 1.0, 2.0)
LESION_THRESHOLD = 0.3  # with which flawed models find lesions in full
SPECK_MM3 = 8.0  # volume of the largest speck; lesions are larger than 60 mm³
DATASET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "file_ending": ".nii.gz",
}
FOLDS = 5


def made_up_labels(rng: np.random.Generator) -> np.ndarray:
    """An organ and one to three lesions next to it, (x, y, z)."""
    grid = np.indices(SHAPE)
    labels = _ball(grid, (13, 18, 10), rng.uniform(7, 9)).astype(np.uint8)
    for place in rng.permutation([(32, 8, 6), (32, 26, 5), (33, 17, 15)])[: rng.integers(1, 4)]:
        labels[_ball(grid, place, rng.uniform(2.8, 4.5))] = 2
    return labels


def probabilities_of(labels: np.ndarray, flawed: bool, rng: np.random.Generator) -> np.ndarray:
    """Probabilities of background, organ and lesion, (3, x, y, z), as a flawed or a noisy model gives them."""
    found = []
    for value, threshold in ((1, 0.5), (2, LESION_THRESHOLD if flawed else 0.5)):
        inside, outside = (distance_transform_edt(mask, SPACING_MM) for mask in (labels == value, labels != value))
        depth = np.where(labels == value, inside - 0.5, 0.5 - outside)
        noise = gaussian_filter(rng.standard_normal(SHAPE), 1.5)
        depth = depth + noise / noise.std() * (0.2 if flawed else 0.7)
        found.append(1 / (1 + np.exp(-np.clip(depth / 0.7, -30, 30)) * (1 - threshold) / threshold))
    organ, lesion = found
    if flawed:
        x, y, z = rng.integers((10, 15, 8), (17, 22, 13))
        organ[x : x + 2, y : y + 2, z] = 0.1  # a hole
        organ[2:7, 2:6, 15:18] = 0.8  # a second piece
        for _ in range(rng.integers(2, 5)):
            x, y, z = rng.integers((22, 2, 1), (26, 34, 18))
            lesion[x : x + 2, y, z] = 0.9  # a speck of at most 4 mm³, or 8 where two touch
    organ, lesion = organ * (1 - lesion) + 1e-6, lesion * (1 - 0.5 * organ)
    background = np.maximum(1 - organ - lesion, 1e-6)
    stacked = np.stack([background, organ, lesion])
    return (stacked / stacked.sum(0)).astype(np.float32)


def write_study(root: Path, seeds: Sequence[int], flawed: bool, with_probabilities: bool = True) -> Path:
    """Write labels, and a model of five folds with its validation; returns the model's folder."""
    raw, model = root / "nnUNet_raw" / NAME, root / "nnUNet_results" / NAME / MODEL
    rows: list[list[dict[str, Any]]] = [[] for _ in range(FOLDS)]
    for number, seed in enumerate(seeds):
        rng, fold = np.random.default_rng(seed), number % FOLDS
        labels, case = made_up_labels(rng), f"case_{number:03d}"
        probabilities = probabilities_of(labels, flawed, rng)
        validation = model / f"fold_{fold}" / "validation"
        reference, prediction = raw / "labelsTr" / f"{case}.nii.gz", validation / f"{case}.nii.gz"
        _write(reference, labels)
        _write(prediction, probabilities.argmax(0).astype(np.uint8))
        if with_probabilities:
            np.savez_compressed(validation / f"{case}.npz", probabilities=probabilities.transpose(0, 3, 2, 1))
        rows[fold].append({"reference_file": str(reference), "prediction_file": str(prediction), "metrics": {}})
    for fold, own in enumerate(rows):
        (model / f"fold_{fold}" / "checkpoint_final.pth").write_bytes(b"weights of fold %d" % fold)
        summary = {"metric_per_case": own, "mean": {}, "foreground_mean": {}}
        (model / f"fold_{fold}" / "validation" / "summary.json").write_text(json.dumps(summary))
    dataset = {**DATASET, "numTraining": len(seeds)}
    for folder in (raw, model):
        (folder / "dataset.json").write_text(json.dumps(dataset))
    plans = {"dataset_name": NAME, "plans_name": "nnUNetFactorizerPlans", "configurations": {}}
    (model / "plans.json").write_text(json.dumps(plans))
    return model


def cases_of(model: Path) -> list[TunedCase]:
    """The validation cases of a study."""
    labels = model.parents[2] / "nnUNet_raw" / NAME / "labelsTr"
    files = sorted(model.glob("fold_*/validation/*.nii.gz"))
    return [
        TunedCase(name, file.parents[1].name, labels / file.name, file, file.with_name(f"{name}.npz"))
        for file in files
        for name in [file.name.removesuffix(".nii.gz")]
    ]


def measure(cases: int, draw: int, flawed: bool, processes: int) -> dict[str, Any]:
    """Tune on some cases, and apply the rules to as many others."""
    seeds = range(1000 * draw + 500 * flawed, 1000 * draw + 500 * flawed + 2 * cases)
    with tempfile.TemporaryDirectory() as folder:
        model, others = (
            write_study(Path(folder, part), own, flawed)
            for part, own in (("tuned", seeds[:cases]), ("new", seeds[cases:]))
        )
        environment = {"nnUNet_raw": str(model.parents[2] / "nnUNet_raw")}
        outcome = tune_rules(
            RuleTuningRequest(model=model, sources=Sources(environment=environment), num_processes=processes)
        )
        objective = Objective(DatasetJson(DATASET), regions_of(DatasetJson(DATASET)))
        rules = {} if outcome.rules is None else dict(outcome.rules.rules)
        loaded = [RuleCase(case, objective, True) for case in cases_of(others)]
        gains = np.array([case.score(rules) - case.score({}) for case in loaded])
    found = estimate(gains)
    return {
        "model": "flawed" if flawed else "noisy",
        "draw": draw,
        "rules": {name: str(rule) for name, rule in rules.items()},
        "gains": {name: [one.gain.mean, one.gain.low, one.gain.high] for name, one in outcome.regions.items()},
        "new_cases": {"before": float(np.mean([case.score({}) for case in loaded])), "gain": found.mean},
        "interval": [found.low, found.high],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=30, help="to tune on, and as many new ones (default: 30)")
    parser.add_argument("--draws", type=int, default=5, help="of each kind of model (default: 5)")
    parser.add_argument("-np", dest="processes", type=int, default=1, help="cases at the same time (default: 1)")
    parser.add_argument("--out", type=output_file, required=True, help="file for the numbers")
    args = parser.parse_args(argv)
    rows = [measure(args.cases, draw, flawed, args.processes) for flawed in (True, False) for draw in range(args.draws)]
    args.out.write_text(json.dumps({"cases": args.cases, "rows": rows}, indent=1) + "\n")
    for row in rows:
        new = row["new_cases"]
        interval = "" if math.isnan(row["interval"][0]) else " [{:+.4f}, {:+.4f}]".format(*row["interval"])
        print(f"{row['model']} {row['draw']}: {new['before']:.4f} {new['gain']:+.4f}{interval} {row['rules']}")


def _ball(grid: np.ndarray, centre: Sequence[float], radius_mm: float) -> np.ndarray:
    distances = [(axis - at) * mm for axis, at, mm in zip(grid, centre, SPACING_MM, strict=True)]
    return np.sqrt(sum(one**2 for one in distances)) < radius_mm


def _write(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels.transpose(2, 1, 0)))
    image.SetSpacing(SPACING_MM)
    sitk.WriteImage(image, str(path))


if __name__ == "__main__":
    main()
