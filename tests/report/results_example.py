"""Folders of nnU-Net for a small made-up study: a dataset, models with five folds, test predictions.

Predictions are references with random voxels removed, so that models differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage
from training_logs import training_log

from factorizer_nnunet.evaluation.metrics import metrics_for
from factorizer_nnunet.evaluation.scores import Files, Lesion, Scores
from factorizer_nnunet.report.results import Result

DATASET = "Dataset321_Blobs"
PLANS, CONFIGURATION = "nnUNetPlans", "3d_fullres"
SPACING_MM = (1.0, 1.0, 2.0)
SHAPE = (24, 20, 12)  # x, y, z
DATASET_JSON = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "front": 1, "back": 2},
    "numTraining": 10,
    "file_ending": ".nii.gz",
}
_PLANS = {
    "dataset_name": DATASET,
    "plans_name": PLANS,
    "configurations": {
        "3d_fullres": {
            "patch_size": [24, 24, 24],
            "batch_size": 2,
            "spacing": [2.0, 1.0, 1.0],
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {"features_per_stage": [8, 16]},
            },
        }
    },
}


@dataclass(frozen=True)
class Study:
    """The folders of a made-up study."""

    root: Path
    cases: tuple[str, ...]

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / DATASET

    @property
    def environment(self) -> dict[str, str]:
        return {name: str(self.root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}

    def model(self, trainer: str) -> Path:
        return self.root / "nnUNet_results" / DATASET / f"{trainer}__{PLANS}__{CONFIGURATION}"

    def fold_of(self, case: str) -> int:
        return self.cases.index(case) % 5


def case_names(count: int) -> tuple[str, ...]:
    return tuple(f"blob_{number:03d}" for number in range(count))


def write_study(root: Path, count: int = 10) -> Study:
    """Write the raw dataset of a study, without models."""
    study = Study(root, case_names(count))
    for number, case in enumerate(study.cases):
        rng = np.random.default_rng(number)
        labels = _labels(rng)
        noisy = 100 * (labels > 0) + rng.normal(200, 20, labels.shape)
        write_volume(study.raw / "labelsTr" / f"{case}.nii.gz", labels)
        write_volume(study.raw / "imagesTr" / f"{case}_0000.nii.gz", noisy.astype(np.int16))
    (study.raw / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return study


def add_model(study: Study, trainer: str, wear: float, epochs: int = 12, folds: Sequence[int] = range(5)) -> Path:
    """Write a trained and validated model; predictions are worse for a higher ``wear`` (from 0)."""
    model = study.model(trainer)
    model.mkdir(parents=True)
    (model / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (model / "plans.json").write_text(json.dumps(_PLANS))
    for fold in folds:
        own = [case for case in study.cases if study.fold_of(case) == fold]
        folder = model / f"fold_{fold}"
        write_predictions(study, folder / "validation", own, wear)
        (folder / "training_log_2026_1_1_00_00_00.txt").write_text(training_log(epochs, wear + fold / 50))
    return model


def write_predictions(study: Study, folder: Path, cases: Sequence[str], wear: float) -> None:
    """Write predictions of some cases with the entries of nnU-Net's summary.json that the report reads."""
    rows = []
    for case in cases:
        reference = study.raw / "labelsTr" / f"{case}.nii.gz"
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(reference))).transpose(2, 1, 0)
        rng = np.random.default_rng([study.cases.index(case), round(wear * 100)])
        noise = ndimage.gaussian_filter(rng.standard_normal(labels.shape), 2)
        moved = np.where(noise / noise.std() > 2.2 - wear, 0, labels).astype(np.uint8)
        path = folder / f"{case}.nii.gz"
        write_volume(path, moved)
        rows.append({"reference_file": str(reference), "prediction_file": str(path), "metrics": {}})
    (folder / "summary.json").write_text(json.dumps({"metric_per_case": rows, "mean": {}, "foreground_mean": {}}))


def write_volume(path: Path, values: np.ndarray, spacing: tuple[float, ...] = SPACING_MM) -> None:
    """Write voxels (x, y, z) to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


def random_scores(result: Result, seed: int) -> Scores:
    """Made-up scores of a result's cases, for pages with many cases, which take long to score."""
    rng = np.random.default_rng(seed)
    metrics, regions = metrics_for((1.0,)), ("front", "back")
    drawn = {"": lambda: rng.beta(8, 2), "mm": lambda: rng.exponential(3), "ml": lambda: rng.gamma(4, 3)}
    table = {
        (case, region, metric.key): drawn[metric.unit]()
        for case in result.names
        for region in regions
        for metric in metrics
    }
    lesions = [Lesion(case, "front", rng.lognormal(0, 1.5), bool(rng.random() < 0.8)) for case in result.names]
    files = {case.name: Files(str(case.reference), str(case.prediction)) for case in result.cases}
    labels = {"front": (1,), "back": (2,)}
    keys = {"front": "1", "back": "2"}
    return Scores(
        scheme="none", metrics=metrics, labels=labels, keys=keys, cases=result.names, files=files,
        table=table, lesions=tuple(lesions),
    )  # fmt: skip


def _labels(rng: np.random.Generator) -> np.ndarray:
    """Two halves of an ellipsoid and, in some cases, a small second piece of the front."""
    grid = np.indices(SHAPE)
    centre = np.array(SHAPE) / 2 + rng.uniform(-1, 1, 3)
    radii = np.array(SHAPE) * rng.uniform(0.2, 0.38)
    inside = (((grid - centre[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(axis=0) < 1
    labels = np.where(inside, np.where(grid[1] < centre[1], 1, 2), 0).astype(np.uint8)
    if rng.random() < 0.5:
        labels[1:3, 1:3, 1:2] = 1
    return labels
