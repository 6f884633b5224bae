"""The folders and the data set that every test of planning works on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nnunet_folders import use_folders_below
from planning_example import (
    NAME,
    NUM_CASES,
    SHAPE,
    dataset_json,
    write_image,
    write_json,
)


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
