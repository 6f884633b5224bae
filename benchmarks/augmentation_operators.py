"""How many operators augmentation on the device calls, and what a batch at a time would change, without a GPU.

    OMP_NUM_THREADS=1 python -m benchmarks.augmentation_operators      # writes docs/measured/augmentation_operators.md

Samples of nnU-Net's pipeline are transformed on torch's meta device, which computes nothing: counted are the operators
that a GPU would run, once for each sample, and as few as they would be if each transform handled all samples of a batch
that have it at once. Then transforms that are easily written for a batch are timed on the CPU in both ways.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor

from benchmarks.output_paths import output_folder_or_none
from benchmarks.step_operators import Called
from benchmarks.throughput import CHANNELS, stock_pipeline
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.training.augmentation.pipeline import DividedPipeline, divide
from factorizer_nnunet.training.augmentation.spatial import Box
from factorizer_nnunet.training.augmentation.transforms import apply, apply_with

DATA = {"3D": ((128, 128, 128), 2), "dummy 2D": ((48, 192, 192), 2), "2D": ((512, 512), 12)}  # patch, batch
SMALL = (16, 16, 16)
PAGE = "augmentation_operators.md"
_SAMPLING = "rotation, scale, padding"
_ALIKE = 1e-4  # of the range, between a batch and its samples
_HALF = 3  # of the longest kernel of nnU-Net's blur


def name_of(transform: BasicTransform) -> str:
    """Its class, without the name that all have in common."""
    inner = transform.transform if isinstance(transform, RandomTransform) else transform
    return type(inner).__name__.removesuffix("Transform").removesuffix("Tansform")


def drawn_sample(pipeline: DividedPipeline, region: Sequence[int], device: str) -> tuple[Tensor, Tensor, Box]:
    """A sample as it comes from a worker, from within a case."""
    assert pipeline.draws is not None
    box = pipeline.draws.draw([0] * len(region), region, region)
    size = np.subtract(box.stop, box.start).tolist()
    return torch.rand((CHANNELS, *size), device=device), torch.ones((1, *size), dtype=torch.int16, device=device), box


def counted(pipeline: DividedPipeline, region: Sequence[int]) -> dict[str, int]:
    """Operators of a sample, by the name of the transform."""
    image, labels, box = drawn_sample(pipeline, region, "meta")
    with Called("meta") as called:
        image, labels = DividedPipeline(pipeline.draws, ()).transform(image, labels, box.pad, box.affine)
    found = {_SAMPLING: called.count}
    sample: dict[str, Any] = {"image": image, "segmentation": labels}
    for transform in pipeline.others:
        with Called("meta") as called:
            sample = apply(transform, sample)
        name = name_of(transform)
        found[name] = found.get(name, 0) + called.count
    return found


def milliseconds_of_python(samples: int) -> float:
    """CPU time a sample of drawing parameters and calling operators: of a patch so small that computing is free."""
    stock, region = stock_pipeline(SMALL)
    pipeline = divide(stock)
    given = [drawn_sample(pipeline, region, "cpu") for _ in range(samples)]
    start = time.process_time()
    for image, labels, box in given:
        pipeline.transform(image, labels, box.pad, box.affine)
    return (time.process_time() - start) / samples * 1000


def noise_of_batch(images: Tensor, parameters: Sequence[Mapping[str, Any]]) -> None:
    """``GaussianNoiseTransform`` with a variance a sample."""
    images.add_(torch.randn_like(images).mul_(_column([own["sigmas"] for own in parameters], images)))


def gamma_of_batch(images: Tensor, parameters: Sequence[Mapping[str, Any]]) -> None:
    """``GammaTransform`` with statistics kept."""
    values = images.flatten(2)
    gamma = torch.stack([own["gamma"] for own in parameters])[..., None]
    mean, deviation = values.mean(-1, keepdim=True), values.std(-1, keepdim=True)
    low, high = torch.aminmax(values, dim=-1, keepdim=True)
    values.sub_(low).div_((high - low).clamp(min=1e-7)).pow_(gamma).mul_(high - low).add_(low)
    factor = deviation / values.std(-1, keepdim=True).clamp(min=1e-7)
    values.sub_(values.mean(-1, keepdim=True)).mul_(factor).add_(mean)


def blur_of_batch(images: Tensor, parameters: Sequence[Mapping[str, Any]]) -> None:
    """``GaussianBlurTransform``: kernels of one length, and one that keeps the image for channels that have none."""
    weights = torch.zeros(*images.shape[:2], images.ndim - 2, _HALF + 1)
    weights[..., 0] = 1
    for sample, own in enumerate(parameters):
        channels = own["apply_to_channel"].nonzero().flatten().tolist()
        for channel, sigmas in zip(channels, own["sigmas"], strict=True):
            for axis, sigma in enumerate(sigmas):
                weights[sample, channel, axis] = _kernel(float(sigma))
    blurred = images
    for axis in range(images.ndim - 2):
        blurred = _blur_axis(blurred, weights[:, :, axis], axis + 2)
    images.copy_(blurred)


def _kernel(sigma: float) -> Tensor:
    """Of batchgeneratorsv2, from the middle on, with zeros up to ``_HALF``."""
    wanted = 6 * sigma + 0.5
    taps = round(wanted)
    if taps % 2 == 0:
        taps += 1 if wanted >= taps else -1
    shifts = torch.arange(_HALF + 1)
    values = torch.exp(-0.5 * (shifts / sigma) ** 2) * (shifts <= taps // 2)
    return values / (values[0] + 2 * values[1:].sum())


def _blur_axis(images: Tensor, weights: Tensor, axis: int) -> Tensor:
    size = images.shape[axis]
    before = images.narrow(axis, 1, _HALF).flip(axis)
    after = images.narrow(axis, size - 1 - _HALF, _HALF).flip(axis)
    padded = torch.cat([before, images, after], axis)
    columns = [weight[(..., *[None] * (images.ndim - 2))] for weight in weights.unbind(-1)]
    result = images * columns[0]
    for shift, column in enumerate(columns[1:], 1):
        both = padded.narrow(axis, _HALF - shift, size) + padded.narrow(axis, _HALF + shift, size)
        result.addcmul_(both, column)
    return result


def _column(values: Sequence[float], images: Tensor) -> Tensor:
    return torch.tensor(values, dtype=images.dtype).view(-1, *[1] * (images.ndim - 1))


OfBatch = Callable[[Tensor, Sequence[Mapping[str, Any]]], None]
BATCHED: dict[str, tuple[BasicTransform, OfBatch]] = {  # with the settings of nnU-Net's pipeline
    "noise": (GaussianNoiseTransform((0, 0.1), 1, True), noise_of_batch),
    "gamma": (GammaTransform((0.7, 1.5), 0, False, 1, 1), gamma_of_batch),
    "blur": (GaussianBlurTransform((0.5, 1.0), False, False, 0.5), blur_of_batch),
}


@dataclass(frozen=True)
class Timed:
    """CPU seconds a batch, and operators of it."""

    seconds: tuple[float, float]  # one by one, and all at once
    operators: tuple[int, int]


def timed(name: str, shape: Sequence[int], rounds: int) -> Timed:
    """Both ways in turns, for a batch of a shape (B, C, *patch) whose samples all have the transform; medians.

    Raises:
        AssertionError: they give other values.
    """
    transform, of_batch = BATCHED[name]
    seconds: tuple[list[float], list[float]] = ([], [])
    operators: tuple[list[int], list[int]] = ([], [])
    for number in range(rounds):
        torch.manual_seed(number)
        np.random.seed(number)
        images = torch.randn(*shape)
        parameters = [transform.get_parameters(image=image) for image in images]
        one_by_one, at_once = images.clone(), images.clone()

        def each(images: Tensor = one_by_one, parameters: Sequence[dict] = parameters) -> None:
            for image, own in zip(images, parameters, strict=True):
                apply_with(transform, {"image": image}, own)

        def whole(images: Tensor = at_once, parameters: Sequence[dict] = parameters) -> None:
            of_batch(images, parameters)

        for way, run in enumerate((each, whole)):
            start = time.process_time()
            run()
            seconds[way].append(time.process_time() - start)
        if name != "noise":
            torch.testing.assert_close(at_once, one_by_one, rtol=0, atol=_ALIKE * float(images.max() - images.min()))
        for way, run in enumerate((each, whole)):
            with Called() as called:
                run()
            operators[way].append(called.count)
    first, second = (statistics.median(own) for own in seconds)
    return Timed((first, second), (max(operators[0]), max(operators[1])))


def operators_at_once(batch: Sequence[Mapping[str, int]]) -> int:
    """The fewest for a batch, from those of its samples; these are cut from boxes of different sizes one by one."""
    of_each = sum(own[_SAMPLING] for own in batch)
    return of_each + sum(max(own[name] for own in batch) for name in batch[0] if name != _SAMPLING)


def counts(samples: int) -> tuple[list[list[str]], list[list[str]]]:
    """Rows about each kind of data, and about each transform in 3D."""
    rows, transforms = [], []
    for name, (patch, batch) in DATA.items():
        stock, region = stock_pipeline(patch)
        pipeline = divide(stock)
        torch.manual_seed(0)
        np.random.seed(0)
        found = [counted(pipeline, region) for _ in range(samples // batch * batch)]
        sums = [sum(own.values()) for own in found]
        batches = [found[first : first + batch] for first in range(0, len(found), batch)]
        fewest = statistics.mean(map(operators_at_once, batches))
        mean = statistics.mean(sums)
        numbers = [f"{mean:.0f}", str(max(sums)), f"{mean * batch:.0f}", f"{fewest:.0f}"]
        rows.append([name, f"{'×'.join(map(str, patch))}, {batch}", *numbers])
        if len(patch) == 3 and not transforms:
            for key in found[0]:
                own = [one[key] for one in found if one[key]]
                often = f"{len(own) / len(found):.0%}"
                transforms.append(
                    [key, often, f"{statistics.mean(own):.0f}" if own else "", f"{sum(own) / len(found):.0f}"]
                )
    return rows, transforms


def report(samples: int, patch: Sequence[int], rounds: int) -> str:
    """The page."""
    by_data, by_transform = counts(samples)
    by_data.insert(0, ["data", "patch, batch", "mean", "largest", "of a batch", "at once, at least"])
    by_transform.insert(0, ["transform", "samples", "operators where it changes one", "of an average sample"])
    times = []
    for name in BATCHED:
        own = timed(name, (2, CHANNELS, *patch), rounds)
        seconds = [f"{value:.3g}" for value in own.seconds]
        times.append([name, *map(str, own.operators), *seconds, f"{own.seconds[1] / own.seconds[0]:.2f}"])
    names = ("batchgeneratorsv2", "nnunetv2")
    versions = ", ".join([f"torch {torch.__version__}", *(f"{one} {version(one)}" for one in names)])
    return f"""# Operators of augmentation on the device

Written by `python -m benchmarks.augmentation_operators` (see `--help`) without a GPU: nnU-Net's pipeline with
{CHANNELS} channels, three regions, masks of normalisation and deep supervision at 5 scales, {samples} samples of each
kind. {platform.machine()}, {os.cpu_count()} cores, one thread; {versions}.

Counted are the operators of PyTorch that augmentation calls for a sample on the device, without those that only give
another view; a GPU launches about one kernel for each. *At once, at least* is what a batch would call if each transform
handled all its samples that have it with the operators of the one that needs most; rotation and scale stay one by one,
since the boxes that workers read differ in size.

{markdown_table(by_data, right=True)}

Drawing the parameters and calling the operators takes {milliseconds_of_python(min(samples, 500)):.1f} ms of CPU time a
sample; the patch has {"×".join(map(str, SMALL))} voxels there, for which this CPU hardly has to compute.

In 3D, by transform:

{markdown_table(by_transform, right=True)}

Three transforms written for a batch of two of {"×".join(map(str, patch))}, both of which have them: the most operators
that were called, and CPU seconds of a batch, medians of {rounds} turns. For a batch, the blur has kernels of one length
and blurs channels that it would leave alone.

{markdown_table([["transform", "one by one", "at once", "one by one: s", "at once: s", "ratio"], *times], right=True)}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, time, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=600, help="default %(default)s")
    parser.add_argument("--patch", type=int, nargs=3, default=[128] * 3, help="of the times (default 128 128 128)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of the times (default %(default)s)")
    parser.add_argument("--docs", type=output_folder_or_none, default="docs/measured", help="for the page; empty: none")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    text = report(options.samples, options.patch, options.rounds)
    print(text)
    if options.docs:
        write_text_atomically(options.docs / PAGE, text)


if __name__ == "__main__":
    main()
