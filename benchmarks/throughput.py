"""CPU time that a training sample costs in nnU-Net's workers, augmented there or on the device.

    python -m benchmarks.throughput --work DIR                    # writes docs/measured/throughput.md
    python -m benchmarks.throughput --work DIR --patch 64 64 64 --rounds 3 --docs ''

Writes preprocessed cases of the size of a brain (140 x 171 x 137 voxels, four channels, three regions) below DIR, once
per patch size, since nnU-Net chooses its chunks by it. nnU-Net's loader with its complete pipeline, and the loader
that draws first and reads boxes, then take turns in this process, on one thread. A turn gives several batches of two;
copying a batch to shared memory, as workers do, is counted. The bytes that blosc2 decompresses follow from the blocks
that a sample touches.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy.ndimage import gaussian_filter

from benchmarks.output_paths import output_folder_or_none
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.training.augmentation.loader import BOX_PARTS, BoxLoader
from factorizer_nnunet.training.augmentation.pipeline import DividedPipeline, divide

PATCHES = ((128, 128, 128), (64, 64, 64), (48, 192, 192))
SHAPE = (140, 171, 137)
CHANNELS = 4
REGIONS = ((1, 2, 3), (2, 3), (3,))
BATCH = 2
SCALES = [[1 / 2**level] * 3 for level in range(5)]  # of deep supervision
PAGE = "throughput.md"


@dataclass(frozen=True)
class Result:
    """Of one patch size; each pair is stock, then boxes."""

    patch: tuple[int, ...]
    cpu_seconds: tuple[float, float]
    wall_seconds: tuple[float, float]
    megabytes: tuple[float, float]
    main_process_seconds: float  # what the divided pipeline costs after the worker, on this CPU


def write_cases(folder: Path, patch: Sequence[int], cases: int, shape: Sequence[int]) -> list[str]:
    """Smooth textures within an ellipsoid, and nested labels; existing files stay."""
    names = [f"case_{number:03d}" for number in range(cases)]
    folder.mkdir(parents=True, exist_ok=True)
    radius = sum(
        ((np.arange(n) - n / 2) / (0.5 * n)).reshape([-1 if i == a else 1 for i in range(3)]) ** 2
        for a, n in enumerate(shape)
    )
    brain = radius < 1
    for number, name in enumerate(names):
        if (folder / f"{name}.pkl").exists():
            continue
        rng = np.random.default_rng(number)
        texture = gaussian_filter(rng.normal(size=shape).astype(np.float32), 3)
        texture /= texture.std()
        data = np.stack([brain * (texture + 0.3 * rng.normal(size=shape)) for _ in range(CHANNELS)]).astype(np.float32)
        labels = np.where(brain, sum((texture > limit).astype(np.int8) for limit in (1.8, 2.2, 2.6)), -1)[None]
        locations = {region: np.argwhere(np.isin(labels, region))[:10000] for region in REGIONS}
        blocks, chunks = comp_blosc2_params(data.shape, patch)
        layout = {"blocks": blocks, "chunks": chunks, "blocks_seg": blocks, "chunks_seg": chunks}
        properties = {"class_locations": locations}
        nnUNetDatasetBlosc2.save_case(data, labels.astype(np.int8), properties, str(folder / name), **layout)
    return names


def stock_pipeline(patch: Sequence[int]) -> tuple[BasicTransform, list[int]]:
    """The pipeline of nnU-Net's trainer, and the size of the region that its loader reads."""
    settings = SimpleNamespace(patch_size=list(patch))
    trainer = SimpleNamespace(configuration_manager=settings, print_to_log_file=lambda *_: None)
    rotation, dummy_2d, region, axes = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
    scales = [scale[: len(patch)] for scale in SCALES]
    pipeline = nnUNetTrainer.get_training_transforms(
        list(patch), rotation, scales, axes, dummy_2d, use_mask_for_norm=[True] * CHANNELS, regions=REGIONS
    )
    return pipeline, list(region)


def stock_loader(folder: Path, patch: Sequence[int]) -> nnUNetDataLoader:
    """As nnU-Net's trainer makes it for training batches."""
    pipeline, region = stock_pipeline(patch)
    labels = LabelManager({"background": 0, "whole": (1, 2, 3), "core": (2, 3), "enhancing": 3}, (1, 2, 3))
    dataset = nnUNetDatasetBlosc2(str(folder))
    return nnUNetDataLoader(dataset, BATCH, region, list(patch), labels, 0.33, None, None, transforms=pipeline)


def hand_over(batch: Any) -> None:
    """Copy a batch to shared memory, as a worker's queue does."""
    if isinstance(batch, torch.Tensor):
        batch.share_memory_()
    elif isinstance(batch, dict | list):
        for part in batch.values() if isinstance(batch, dict) else batch:
            hand_over(part)


def seconds_a_sample(loader: nnUNetDataLoader, batches: int, seed: int) -> tuple[float, float]:
    """CPU and wall seconds."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    start = time.process_time(), time.perf_counter()
    for _ in range(batches):
        hand_over(next(loader))
    samples = batches * BATCH
    return (time.process_time() - start[0]) / samples, (time.perf_counter() - start[1]) / samples


class _Counted:
    """An array on disk that counts the bytes of the blocks that its slices touch."""

    def __init__(self, array: Any, total: list[int]) -> None:
        self.array, self.shape, self.total = array, array.shape, total

    def __getitem__(self, slices: tuple[slice, ...]) -> np.ndarray:
        blocks = 1
        for part, size, chunk, block in zip(slices, self.shape, self.array.chunks, self.array.blocks, strict=True):
            voxels = np.arange(*part.indices(size))
            blocks *= len(set(zip(voxels // chunk, voxels % chunk // block, strict=True)))
        self.total[0] += blocks * math.prod(self.array.blocks) * self.array.dtype.itemsize
        return self.array[slices]


def megabytes_a_sample(loader: nnUNetDataLoader, batches: int) -> float:
    """Decompressed by blosc2."""
    total = [0]
    dataset, load = loader._data, loader._data.load_case

    def counted(case: str) -> tuple[Any, ...]:
        data, labels, previous, properties = load(case)
        return _Counted(data, total), _Counted(labels, total), previous, properties

    dataset.load_case = counted
    np.random.seed(0)
    for _ in range(batches):
        next(loader)
    dataset.load_case = load
    return total[0] / (batches * BATCH) / 1e6


def main_process_seconds(loader: BoxLoader, pipeline: DividedPipeline, batches: int) -> float:
    """CPU seconds a sample after the worker, were the CPU the device."""
    given = [next(loader) for _ in range(batches)]
    start = time.process_time()
    for boxes in given:
        for sample in zip(*(boxes[part] for part in BOX_PARTS), strict=True):
            pipeline.transform(*sample)
    return (time.process_time() - start) / (batches * BATCH)


def measure(work: Path, patch: tuple[int, ...], rounds: int, batches: int, cases: int, shape: Sequence[int]) -> Result:
    """Both loaders in turns; medians of the turns."""
    folder = work / "x".join(map(str, (*shape, "for", *patch)))
    write_cases(folder, patch, cases, shape)
    stock = stock_loader(folder, patch)
    pipeline = divide(stock.transforms)
    loaders = (stock, BoxLoader(stock_loader(folder, patch), pipeline.draws))
    for loader in loaders:  # fills the page cache, and lets the stock blur choose its method
        seconds_a_sample(loader, batches, seed=0)
    turns = [[seconds_a_sample(loader, batches, turn) for loader in loaders] for turn in range(1, rounds + 1)]
    cpu, wall = (tuple(statistics.median(turn[which][clock] for turn in turns) for which in (0, 1)) for clock in (0, 1))
    stock.transforms = None  # they read nothing
    decompressed = tuple(megabytes_a_sample(loader, rounds * batches) for loader in loaders)
    return Result(patch, cpu, wall, decompressed, main_process_seconds(loaders[1], pipeline, batches))


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    header = [
        "patch",
        "stock: CPU s",
        "boxes: CPU s",
        "ratio",
        "stock: MB",
        "boxes: MB",
        "ratio",
        "left for the device: CPU s",
    ]
    rows = [
        [
            "×".join(map(str, result.patch)),
            *(f"{seconds:.4f}" for seconds in result.cpu_seconds),
            f"{result.cpu_seconds[1] / result.cpu_seconds[0]:.3f}",
            *(f"{megabytes:.1f}" for megabytes in result.megabytes),
            f"{result.megabytes[1] / result.megabytes[0]:.2f}",
            f"{result.main_process_seconds:.3f}",
        ]
        for result in results
    ]
    return markdown_table([header, *rows], right=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the cases (some 15 MB each)")
    parser.add_argument("--patch", type=int, nargs=3, action="append", help=f"may be repeated (default {PATCHES})")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, help="voxels of a case")
    parser.add_argument("--cases", type=int, default=6, help="default 6")
    parser.add_argument("--rounds", type=int, default=5, help="turns (default 5)")
    parser.add_argument("--batches", type=int, default=8, help="batches of two a turn (default 8)")
    parser.add_argument("--docs", type=output_folder_or_none, default="docs/measured", help="for the page; empty: none")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sizes = (options.rounds, options.batches, options.cases, tuple(options.shape))
    results = [measure(options.work, tuple(patch), *sizes) for patch in options.patch or PATCHES]
    print(table(results))
    if options.docs:
        write_text_atomically(options.docs / PAGE, page(results, *sizes))


def page(results: Sequence[Result], rounds: int, batches: int, cases: int, shape: Sequence[int]) -> str:
    """The page with the table, and what was measured how."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread; torch {torch.__version__}, "
    packages = ", ".join(f"{name} {version(name)}" for name in ("nnunetv2", "batchgeneratorsv2", "blosc2"))
    size = "×".join(map(str, shape))
    return f"""# What a training sample costs in the workers

Written by `python -m benchmarks.throughput` (see `--help`). *Stock* is nnU-Net's loader with its complete pipeline;
*boxes* is the loader of `nnUNet_factorizer_augmentation=device`, which draws the spatial parameters first, reads the
voxels that they need, and leaves the transforms to the device. {cases} synthetic cases of {size} voxels, {CHANNELS}
channels, {len(REGIONS)} regions, batches of {BATCH}, deep supervision at {len(SCALES)} scales.

CPU seconds a sample in the worker are medians of {rounds} turns of {batches} batches each; MB are what blosc2
decompresses a sample. The last column is what is left for the device, here done by one CPU thread. 48×192×192 has
nnU-Net's dummy 2D augmentation, and its patch is larger than the image, so that it is read completely by both.

{machine}{packages}.

{table(results)}

The device's part has **not been measured on a GPU yet**, so that augmentation on the device has to be asked for.
"""


if __name__ == "__main__":
    main()
