"""The planner's memory model against the measured peak of a training step: ``python -m benchmarks.memory_model``.

A step is nnU-Net's: forward with deep supervision under autocast, Dice and cross-entropy loss, backward, clipping and
AdamW. On a CPU the peak is that of torch's allocator, parameters, gradients, AdamW's moments and the batch included,
with patches that fit a small machine; with ``--device cuda`` it is ``torch.cuda.max_memory_allocated``. The model's
figures for the same device are beside it, the reserve of a plan left out. Writes docs/memory.md and docs/memory.json.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.half_precision_cpu import like_a_gpu
from benchmarks.memory_cases import Case
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.planning.memory import stage_sizes
from factorizer_nnunet.training.trainer import build_optimizer

DOCS = Path(__file__).resolve().parents[1] / "docs"
PRECISION = {"cpu": torch.bfloat16, "cuda": torch.float16}


@dataclass(frozen=True)
class Step:
    """A training step that can be repeated, and what it holds between repetitions."""

    run: Callable[[], None]
    held: list[Tensor]


def training_step(case: Case, network: Factorizer, device: str) -> Step:
    """nnU-Net's training step for random images and labels."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(case.batch_size, case.channels, *case.patch_size, generator=generator).to(device)
    sizes = stage_sizes(network.config, case.patch_size)[: max(1, network.config.num_stages - 1)]
    targets = [
        torch.randint(0, case.classes, (case.batch_size, 1, *size), generator=generator, dtype=torch.int16).to(device)
        for size in sizes
    ]
    loss = _loss(len(targets))
    optimizer = build_optimizer(network)
    for parameter in network.parameters():  # AdamW makes its moments in a first step
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

    def run() -> None:
        with torch.autocast(device, PRECISION[device]):
            output = network(image)
            value = loss(output, targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Step(run, [image, *targets])


def _loss(resolutions: int) -> nn.Module:
    """As nnU-Net's trainer builds it: halved weights, none for the lowest of several resolutions."""
    dice_and_ce = DC_and_CE_loss(
        {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}, {}, dice_class=MemoryEfficientSoftDiceLoss
    )
    weights = np.array([1 / 2**i for i in range(resolutions)])
    weights[-1] *= resolutions == 1
    return DeepSupervisionWrapper(dice_and_ce, weights / weights.sum())


def measured_bytes(case: Case, device: str) -> int:
    """Peak of a step, with all that is held between steps."""
    torch.manual_seed(0)
    arguments = case.arguments()
    network = Factorizer(case.channels, case.classes, **arguments, deep_supervision=True).to(device).train()
    step = training_step(case, network, device)
    if device == "cuda":
        step.run()
        torch.cuda.reset_peak_memory_stats()
        step.run()
        return torch.cuda.max_memory_allocated()
    parameters = sum(parameter.nbytes for parameter in network.parameters())
    gc.collect()
    with like_a_gpu(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step.run()  # the profiler sees only what is allocated while it runs
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak + 3 * parameters + sum(tensor.nbytes for tensor in step.held)
