"""Plans and data set as the stock planners write them, cut down to what a trainer reads."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nnunet_folders import use_folders_below
from preprocessed_case import save_case
from stock_plans import configuration

from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

# The fixture ``make_trainer``.
MakeTrainer = Callable[..., nnUNetTrainerFactorizer]

NAME = "Dataset511_Example"
DATASET = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "rim": 1, "core": 2},
    "numTraining": 6,
    "file_ending": ".nii.gz",
}


def example_plans(**configurations: dict[str, Any]) -> dict[str, Any]:
    """Plans of a 3D and a 2D configuration, or of those given."""
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": configurations or {"3d_fullres": configuration(3), "2d": configuration(2)},
        "label_manager": "LabelManager",
        "continue_training": False,
    }


def write_folders(root: Path, monkeypatch: pytest.MonkeyPatch, plans: dict[str, Any]) -> None:
    """nnU-Net's folders below ``root`` with the data set as if preprocessed, and the variables that name them."""
    use_folders_below(root, monkeypatch)
    dataset = root / "nnUNet_preprocessed" / NAME
    for settings in plans["configurations"].values():
        if "data_identifier" in settings:
            (dataset / settings["data_identifier"]).mkdir(parents=True)
            for number in (0, 1):
                save_case(dataset / settings["data_identifier"], f"case_{number}")
    (dataset / "splits_final.json").write_text(json.dumps([{"train": ["case_0"], "val": ["case_1"]}]))
    (dataset / "dataset.json").write_text(json.dumps(DATASET))
    (dataset / "dataset_fingerprint.json").write_text("{}")


def dataset_json() -> dict[str, Any]:
    return copy.deepcopy(DATASET)
