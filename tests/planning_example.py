"""A small data set in nnU-Net's raw layout, for the tests of planning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from nnunet_folders import use_folders_below

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


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parent of nnU-Net's three folders, which the environment names."""
    use_folders_below(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def raw(folders: Path) -> Path:
    """A data set of two channels in nnU-Net's raw layout: a bright box in noise."""
    folder = folders / "nnUNet_raw" / NAME
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    rng = np.random.default_rng(0)
    for case in range(NUM_CASES):
        label = np.zeros(SHAPE, np.uint8)
        label[5:12, 6:15, 4 + case : 14] = 1
        for channel in range(2):
            image = rng.normal(size=SHAPE) + 5 + 3 * label
            write_image(folder / "imagesTr" / f"case_{case}_{channel:04d}.nii.gz", image.astype(np.float32))
        write_image(folder / "labelsTr" / f"case_{case}.nii.gz", label)
    write_json(folder / "dataset.json", dataset_json())
    return folder
