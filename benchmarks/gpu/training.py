"""Samples a second of one trainer, with loading and without, on cases of the size of a brain.

``benchmarks.gpu`` runs it once for each setting:

    python -m benchmarks.gpu.training --cases DIR --trainer nnUNetTrainerFactorizer --device cuda --output FILE

DIR must be the parent of the folders that nnU-Net's three variables name. It gets synthetic preprocessed cases and
stock plans, so that nnU-Net's trainer trains its PlainConvUNet and ours the Factorizer translated from it.
Environment variables decide about augmentation and the step, as in a training. What has been measured is written every
few steps: run again, the command measures only the steps that are left.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from benchmarks.speed.networks import topology
from benchmarks.throughput import BATCH, CHANNELS, SHAPE, write_cases
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.network import VARIANTS, variant_arguments
from factorizer_nnunet.nnunet.environment import FOLDER_VARIABLES
from factorizer_nnunet.planning.architecture import architecture_entry
from factorizer_nnunet.training.augmentation.augmenter import end_workers
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

# Before steps with loading are timed, the network is compiled, and batches that the workers have prepared meanwhile are
# used up; before steps on one batch, nothing is left to prepare.
WARM_UP, WARM_UP_ALONE = 30, 3
_WRITTEN_EVERY = 10  # steps
TRAINERS = {trainer.__name__: trainer for trainer in (nnUNetTrainer, nnUNetTrainerFactorizer)}
DATASET, CONFIGURATION, PLANS = "Dataset900_Synthetic", "3d_fullres", "nnUNetPlans"
DATASET_JSON = {
    "channel_names": {str(channel): f"channel {channel}" for channel in range(CHANNELS)},
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
    "regions_class_order": [1, 2, 3],
    "numTraining": 6,
    "file_ending": ".nii.gz",
}


def example_plans(patch: Sequence[int], shape: Sequence[int], variant: str | None = None) -> dict[str, Any]:
    """What a trainer reads of the plans that nnU-Net makes for isotropic images, or of ours for a variant."""
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
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": unet,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    if variant is not None:
        architecture = architecture_entry(variant_arguments(variant, patch))
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
        "architecture": architecture,
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


def measure(
    trainer: nnUNetTrainer, warm_up: int, steps: int, known: Mapping[str, list[float]]
) -> Iterator[dict[str, Any]]:
    """Train for some steps with loading, and as many on one batch; every few steps, all so far as plain JSON values.

    ``known`` has the seconds of steps that have been timed before.
    """
    times = {"loaded": list(known.get("loaded", [])), "one_batch": list(known.get("one_batch", []))}
    trainer.disable_checkpointing = True
    trainer.initialize()
    training, validation = trainer.get_dataloaders()
    try:
        trainer.network.train()
        while (missing := steps - len(times["loaded"])) > 0:
            times["loaded"] += _seconds(
                lambda: trainer.train_step(next(training)), warm_up, min(missing, _WRITTEN_EVERY)
            )
            warm_up = 0
            yield _result(trainer.device, times)
        batch, warm_up = next(training), WARM_UP_ALONE
        while (missing := steps - len(times["one_batch"])) > 0:
            times["one_batch"] += _seconds(lambda: trainer.train_step(batch), warm_up, min(missing, _WRITTEN_EVERY))
            warm_up = 0
            yield _result(trainer.device, times)
    finally:
        for loader in (training, validation):
            end_workers(loader)


def _result(device: torch.device, times: Mapping[str, list[float]]) -> dict[str, Any]:
    loaded, one_batch = times["loaded"], times["one_batch"]
    return {
        "samples_per_s": BATCH * len(loaded) / sum(loaded),
        "median_step_s": statistics.median(loaded),
        "median_step_without_loading_s": statistics.median(one_batch) if one_batch else None,
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        "workers": get_allowed_n_proc_DA(),
        "seconds": dict(times),
    }


def _seconds(step: Callable[[], object], warm_up: int, steps: int) -> list[float]:
    """Of each step after the warm-up; a step ends with its loss on the CPU, so the device has finished."""
    for _ in range(warm_up):
        step()
    ends = [time.perf_counter()]
    for _ in range(steps):
        step()
        ends.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(ends)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one trainer and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, metavar="DIR", help="parent of nnU-Net's folders")
    parser.add_argument("--trainer", choices=TRAINERS, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="default %(default)s")
    parser.add_argument("--patch", type=int, nargs=3, default=[128, 128, 128], help="default 128 128 128")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, help="voxels of a case")
    parser.add_argument("--variant", choices=sorted(VARIANTS), help="network of the plans (default: PlainConvUNet)")
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="steps that are not timed (default %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="that are timed (default %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to extend")
    options = parser.parse_args(arguments)
    for variable in FOLDER_VARIABLES:
        if os.environ.get(variable) != str(options.cases.resolve() / variable):
            sys.exit(f"error: {variable} is not {options.cases.resolve() / variable}; set it")
    if options.variant is not None and options.trainer == nnUNetTrainer.__name__:
        sys.exit("error: --variant is for our trainer")
    plans = example_plans(options.patch, options.shape, options.variant)
    write_dataset(options.cases, plans, cases=6, shape=tuple(options.shape))
    torch.manual_seed(0)
    trainer = TRAINERS[options.trainer](plans, CONFIGURATION, 0, DATASET_JSON, torch.device(options.device))
    about = {"trainer": options.trainer, "variant": options.variant, "patch_size": options.patch}
    before = read_complete_json(options.output) or {}
    known = before["seconds"] if before.items() >= about.items() else {}
    for result in measure(trainer, options.warm_up, options.steps, known):
        write_text_atomically(options.output, json.dumps({**about, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
