"""Configurations as the stock planners write them, cut down to what trainers and predictors read."""

from __future__ import annotations

from typing import Any

PLAIN_UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
RESIDUAL_UNET = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"


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
        **_resampling(),
        "architecture": {
            "network_class_name": RESIDUAL_UNET if residual else PLAIN_UNET,
            "arch_kwargs": stock_kwargs(ndim, num_stages, residual),
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }


def _resampling() -> dict[str, Any]:
    return {
        f"resampling_fn_{what}{end}": value
        for what, order in (("data", 3), ("seg", 1), ("probabilities", 1))
        for end, value in (
            ("", "resample_data_or_seg_to_shape"),
            ("_kwargs", {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}),
        )
    }
