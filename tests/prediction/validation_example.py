"""The images of the tiny models as a preprocessed training set: references, folds, and nnU-Net's files of each case."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny_models import CASES, DATASET, NAME, plans

VALIDATED = ("a", "b")


def write_validation(root: Path) -> None:
    """For the configuration 3d_fullres; fold 0 leaves out VALIDATED, fold 1 nothing."""
    base = root / "nnUNet_preprocessed" / NAME
    manager = PlansManager(plans())
    settings = manager.get_configuration("3d_fullres")
    stored = base / settings.data_identifier
    for file in stored.glob("case*"):
        file.unlink()
    for case in CASES:
        files = [str(root / "images" / f"{case}_{channel:04d}.nii.gz") for channel in range(2)]
        reference = base / "gt_segmentations" / f"{case}.nii.gz"
        _write_labels(reference, SimpleITK.ReadImage(files[0]), len(case))
        data, labels, properties = settings.preprocessor_class(verbose=False).run_case(
            files, str(reference), manager, settings, DATASET
        )
        nnUNetDatasetBlosc2.save_case(data, labels, properties, str(stored / case))
    folds = [{"train": ["c"], "val": list(VALIDATED)}, {"train": list(CASES), "val": []}]
    (base / "splits_final.json").write_text(json.dumps(folds))


def _write_labels(file: Path, image: SimpleITK.Image, seed: int) -> None:
    shape = SimpleITK.GetArrayViewFromImage(image).shape
    labels = SimpleITK.GetImageFromArray(np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8))
    labels.CopyInformation(image)
    SimpleITK.WriteImage(labels, str(file))
