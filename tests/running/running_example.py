"""A data set for the programs of ``fake_nnunet``, and a run over it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK

from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, TRAINER
from factorizer_nnunet.running.paths import Folders, RunPaths
from factorizer_nnunet.running.settings import Prediction, RunSettings

DATASET = "Dataset501_Fake"
CASES = tuple(f"case_{number}" for number in range(6))
TEST_CASES = ("new_0", "new_1")
LABELS = {"background": 0, "whole": [1, 2], "core": 1}


def write_raw(raw: Path) -> None:
    """Six training cases, two test cases with labels; one channel."""
    voxels = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    image, label = SimpleITK.GetImageFromArray(voxels), SimpleITK.GetImageFromArray((voxels % 3).astype(np.uint8))
    for folder, cases, ending in (
        ("imagesTr", CASES, "_0000"),
        ("labelsTr", CASES, ""),
        ("imagesTs", TEST_CASES, "_0000"),
        ("labelsTs", TEST_CASES, ""),
    ):
        (raw / DATASET / folder).mkdir(parents=True)
        for case in cases:
            SimpleITK.WriteImage(image if ending else label, str(raw / DATASET / folder / f"{case}{ending}.nii.gz"))
    content = {"channel_names": {"0": "T1"}, "labels": LABELS, "numTraining": len(CASES), "file_ending": ".nii.gz"}
    (raw / DATASET / "dataset.json").write_text(json.dumps({**content, "regions_class_order": [2, 1]}))


def example_settings(root: Path, **changes: object) -> RunSettings:
    """Two configurations, two folds, test images; ``changes`` are fields of RunSettings."""
    folders = Folders(
        raw=root / "nnUNet_raw", preprocessed=root / "nnUNet_preprocessed", results=root / "nnUNet_results"
    )
    dataset = folders.raw / DATASET
    settings = RunSettings(
        folders=folders,
        dataset=DATASET,
        models=tuple(ModelName(TRAINER, PLANS, configuration) for configuration in ("2d", "3d_fullres")),
        folds=(0, 1),
        device="cpu",
        prediction=Prediction(images=dataset / "imagesTs", output=root / "out", references=dataset / "labelsTs"),
    )
    return replace(settings, **changes)


def paths_of(settings: RunSettings) -> RunPaths:
    return settings.paths
