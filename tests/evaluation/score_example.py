"""Folders of label files to score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np

from factorizer_nnunet.nnunet.dataset_json import DatasetJson

AFFINE = np.diag([-0.5, -0.8, 3.0, 1.0])  # x, y, z in mm, x to the right
AFFINE[:3, 3] = 10, 20, -7
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
DATASET_JSON = {
    "channel_names": {"0": "T1"},
    "labels": REGIONS,
    "regions_class_order": [1, 2],
    "file_ending": ".nii.gz",
}
DATASET = DatasetJson(DATASET_JSON)


def write(path: Path, labels: np.ndarray, affine: np.ndarray = AFFINE, slope: float | None = None) -> Path:
    """Write labels (x, y, z) in their own type; missing parent folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(labels, affine)
    image.header.set_xyzt_units("mm")
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    nibabel.save(image, path)
    return path


def labels_of(seed: int) -> np.ndarray:
    """A box of label 2 inside a box of label 1, at a position that depends on the seed, (12, 10, 8)."""
    rng = np.random.default_rng(seed)
    x, y, z = rng.integers(1, 4, 3)
    labels = np.zeros((12, 10, 8), np.uint8)
    labels[x : x + 6, y : y + 5, z : z + 4] = 1
    labels[x + 1 : x + 4, y + 1 : y + 3, z + 1 : z + 3] = 2
    return labels


def write_folders(root: Path, cases: int = 3) -> tuple[Path, Path]:
    """Write predictions, which are references of other seeds, and references; returns both folders."""
    predictions, references = root / "predictions", root / "references"
    for case in range(cases):
        write(references / f"case_{case}.nii.gz", labels_of(case))
        write(predictions / f"case_{case}.nii.gz", labels_of(case + 100))
    return predictions, references


def edited(path: Path, changes: Mapping[tuple[int, int, int], int]) -> None:
    """Change voxels of a label file."""
    image = nibabel.load(path)
    labels = np.asarray(image.dataobj).copy()
    for voxel, value in changes.items():
        labels[voxel] = value
    write(path, labels, image.affine)
