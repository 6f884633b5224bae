"""Samples a second of one trainer, with loading and without, on cases of the size of a brain.

``benchmarks.gpu`` runs it once for each setting:

    python -m benchmarks.gpu.training --cases DIR --trainer nnUNetTrainerFactorizer --device cuda --output FILE

DIR must be the parent of the folders that nnU-Net's three variables name. It gets synthetic preprocessed cases and
stock plans, so that nnU-Net's trainer trains its PlainConvUNet and ours the Factorizer translated from it.
Environment variables decide about augmentation and the step, as in a training.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from benchmarks.speed.networks import topology
from benchmarks.throughput import BATCH, CHANNELS, SHAPE, write_cases
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.nnunet.environment import FOLDER_VARIABLES
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

TRAINERS = {trainer.__name__: trainer for trainer in (nnUNetTrainer, nnUNetTrainerFactorizer)}
DATASET, CONFIGURATION, PLANS = "Dataset900_Synthetic", "3d_fullres", "nnUNetPlans"
DATASET_JSON = {
    "channel_names": {str(channel): f"channel {channel}" for channel in range(CHANNELS)},
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
    "regions_class_order": [1, 2, 3],
    "numTraining": 6,
    "file_ending": ".nii.gz",
}


def stock_plans(patch: Sequence[int], shape: Sequence[int]) -> dict[str, Any]:
    """What a trainer reads of the plans that nnU-Net makes for isotropic images."""
    widths, strides, kernels = topology(patch)
    stages = len(widths)
    resampling = {
        f"resampling_fn_{what}{end}": value
        for what, order in (("data", 3), ("seg", 1), ("probabilities", 1))
        for end, value in (
            ("", "resample_data_or_seg_to_shape"),
            ("_kwargs", {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}),
        )
    }
    unet = {
        "n_stages": stages,
        "features_per_stage": widths,
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": kernels,
        "strides": strides,
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    settings = {
        "data_identifier": f"{PLANS}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": BATCH,
        "patch_size": list(patch),
        "median_image_size_in_voxels": list(map(float, shape)),
        "spacing": [1.0] * 3,
        "normalization_schemes": ["ZScoreNormalization"] * CHANNELS,
        "use_mask_for_norm": [True] * CHANNELS,
        "batch_dice": False,
        **resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": unet,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": DATASET,
        "plans_name": PLANS,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: settings},
        "label_manager": "LabelManager",
        "continue_training": False,
    }


def write_dataset(root: Path, plans: dict[str, Any], cases: int, shape: Sequence[int]) -> None:
    """nnU-Net's folders with the preprocessed cases; existing cases stay."""
    for folder in ("nnUNet_raw", "nnUNet_results"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    dataset = root / "nnUNet_preprocessed" / DATASET
    settings = plans["configurations"][CONFIGURATION]
    names = write_cases(dataset / settings["data_identifier"], settings["patch_size"], cases, shape)
    content = {
        "dataset.json": DATASET_JSON,
        "dataset_fingerprint.json": {},
        f"{PLANS}.json": plans,
        "splits_final.json": [{"train": names[1:], "val": names[:1]}],
    }
    for name, values in content.items():
        write_text_atomically(dataset / name, json.dumps(values, indent=1))


def measure(trainer: nnUNetTrainer, warm_up: int, steps: int) -> dict[str, Any]:
    """Train for some steps with loading, and as many on one batch; plain JSON values."""
    trainer.disable_checkpointing = True
    trainer.initialize()
    training, validation = trainer.get_dataloaders()
    trainer.network.train()
    loaded = _seconds(lambda: trainer.train_step(next(training)), warm_up, steps)
    batch = next(training)
    one_batch = _seconds(lambda: trainer.train_step(batch), warm_up, steps)
    on_cuda = trainer.device.type == "cuda"
    result = {
        "samples_per_s": BATCH * steps / sum(loaded),
        "median_step_s": statistics.median(loaded),
        "median_step_without_loading_s": statistics.median(one_batch),
        "steps": steps,
        "peak_bytes": torch.cuda.max_memory_allocated() if on_cuda else None,
        "workers": get_allowed_n_proc_DA(),
    }
    for loader in (training, validation):
        if hasattr(loader, "finish"):  # ours
            loader.finish()
    return result


def _seconds(step: Callable[[], object], warm_up: int, steps: int) -> list[float]:
    """Of each step after the warm-up; a step ends with its loss on the CPU, so the device has finished."""

    def timed() -> Iterator[float]:
        before = time.perf_counter()
        for _ in range(warm_up + steps):
            step()
            now = time.perf_counter()
            yield now - before
            before = now

    return list(timed())[warm_up:]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one trainer and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, metavar="DIR", help="parent of nnU-Net's folders")
    parser.add_argument("--trainer", choices=TRAINERS, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="default %(default)s")
    parser.add_argument("--patch", type=int, nargs=3, default=[128, 128, 128], help="default 128 128 128")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, help="voxels of a case")
    # Before them the network is compiled, and the batches that the workers have prepared are used up.
    parser.add_argument("--warm-up", type=int, default=30, help="steps that are not timed (default %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="that are timed (default %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    options = parser.parse_args(arguments)
    for variable in FOLDER_VARIABLES:
        if os.environ.get(variable) != str(options.cases.resolve() / variable):
            sys.exit(f"error: {variable} is not {options.cases.resolve() / variable}; set it")
    plans = stock_plans(options.patch, options.shape)
    write_dataset(options.cases, plans, cases=6, shape=tuple(options.shape))
    torch.manual_seed(0)
    trainer = TRAINERS[options.trainer](plans, CONFIGURATION, 0, DATASET_JSON, torch.device(options.device))
    result = {
        "trainer": options.trainer,
        "patch_size": options.patch,
        **measure(trainer, options.warm_up, options.steps),
    }
    write_text_atomically(options.output, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
