"""A small data set in nnU-Net's raw layout, for the tests of planning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK

NAME = "Dataset007_Tiny"
SHAPE = (20, 28, 24)  # z, y, x in voxels of 1 mm
NUM_CASES = 3


def write_image(path: Path, array: np.ndarray) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def dataset_json() -> dict:
    return {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "box": 1},
        "numTraining": NUM_CASES,
        "file_ending": ".nii.gz",
    }


def fingerprint(shape: tuple[int, int, int], cases: int = NUM_CASES) -> dict:
    """What nnU-Net would have measured on ``cases`` cases of ``shape`` with 1 mm voxels."""
    intensities = {
        "max": 9.0,
        "mean": 5.0,
        "median": 5.0,
        "min": 1.0,
        "percentile_00_5": 2,
        "percentile_99_5": 8,
        "std": 1,
    }
    return {
        "spacings": [[1.0, 1.0, 1.0]] * cases,
        "shapes_after_crop": [list(shape)] * cases,
        "foreground_intensity_properties_per_channel": {"0": intensities, "1": intensities},
        "median_relative_size_after_cropping": 1.0,
    }
