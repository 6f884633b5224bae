"""Plans and data set as the stock planners write them, cut down to what a trainer reads."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nnunet_folders import use_folders_below

from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

# The fixture ``make_trainer``.
MakeTrainer = Callable[..., nnUNetTrainerFactorizer]

NAME = "Dataset511_Example"
PLAIN_UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
RESIDUAL_UNET = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
DATASET = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "rim": 1, "core": 2},
    "numTraining": 6,
    "file_ending": ".nii.gz",
}


def stock_kwargs(ndim: int = 3, num_stages: int = 3, residual: bool = False) -> dict[str, Any]:
    """``arch_kwargs`` of nnU-Net's U-Nets, strides 2 after the first stage."""
    blocks = {"n_blocks_per_stage": [1, 3, 4, 6, 6, 6][:num_stages]} if residual else {}
    return {
        "n_stages": num_stages,
        "features_per_stage": [min(320, 8 * 2**stage) for stage in range(num_stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{ndim}d",
        "kernel_sizes": [[3] * ndim] * num_stages,
        "strides": [[1] * ndim] + [[2] * ndim] * (num_stages - 1),
        **(blocks or {"n_conv_per_stage": [2] * num_stages}),
        "n_conv_per_stage_decoder": [1 if residual else 2] * (num_stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{ndim}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def configuration(ndim: int = 3, num_stages: int = 3, residual: bool = False) -> dict[str, Any]:
    return {
        "data_identifier": f"nnUNetPlans_{ndim}d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16] * ndim,
        "median_image_size_in_voxels": [20.0] * ndim,
        "spacing": [1.0] * ndim,
        "normalization_schemes": ["ZScoreNormalization"] * 2,
        "use_mask_for_norm": [False, False],
        "batch_dice": False,
        "architecture": {
            "network_class_name": RESIDUAL_UNET if residual else PLAIN_UNET,
            "arch_kwargs": stock_kwargs(ndim, num_stages, residual),
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
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
            # By its files nnU-Net tells how the cases are stored.
            for name in ("case_0.b2nd", "case_0.pkl", "case_1.b2nd", "case_1.pkl"):
                (dataset / settings["data_identifier"] / name).touch()
    (dataset / "dataset.json").write_text(json.dumps(DATASET))


def dataset_json() -> dict[str, Any]:
    return copy.deepcopy(DATASET)
