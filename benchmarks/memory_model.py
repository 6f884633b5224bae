"""The planner's memory model against the measured peak of a training step: ``python -m benchmarks.memory_model``.

A step is nnU-Net's: forward with deep supervision under autocast, Dice and cross-entropy loss, backward, clipping and
AdamW. On a CPU the peak counts what torch's allocator hands out plus parameters, gradients, AdamW's moments and the
batch, for patches that fit a small machine; with ``--device cuda`` it is ``torch.cuda.max_memory_allocated``. The
model's estimate is for the same device, without the reserve of a plan. Writes memory.md and memory.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.half_precision_cpu import like_a_gpu
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.planning.memory import estimate
from factorizer_nnunet.training.trainer import build_optimizer

DOCS = Path(__file__).resolve().parents[1] / "docs" / "measured"
CASES_FILE = Path(__file__).with_name("memory_cases.json")
PRECISION = {"cpu": torch.bfloat16, "cuda": torch.float16}


@dataclass(frozen=True)
class Case:
    """A plan, and the channels and classes of the data that it is for."""

    name: str
    patch_size: list[int]  # in voxels
    batch_size: int
    channels: int
    classes: int
    arch_kwargs: dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A training step that can be repeated, and the tensors that live on between repetitions."""

    run: Callable[[], None]
    held: list[Tensor]


def training_step(case: Case, network: Factorizer, device: str) -> Step:
    """nnU-Net's training step for random images and labels."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(case.batch_size, case.channels, *case.patch_size, generator=generator).to(device)
    sizes = network.config.stage_sizes(case.patch_size)[: max(1, network.config.num_stages - 1)]
    targets = [
        torch.randint(0, case.classes, (case.batch_size, 1, *size), generator=generator, dtype=torch.int16).to(device)
        for size in sizes
    ]
    loss = deep_supervision_loss(len(targets))
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


def deep_supervision_loss(resolutions: int) -> nn.Module:
    """As nnU-Net's trainer builds it: halved weights, none for the lowest of several resolutions."""
    dice_and_ce = DC_and_CE_loss(
        {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}, {}, dice_class=MemoryEfficientSoftDiceLoss
    )
    weights = np.array([1 / 2**i for i in range(resolutions)])
    weights[-1] *= resolutions == 1
    return DeepSupervisionWrapper(dice_and_ce, weights / weights.sum())


def measured_bytes(case: Case, device: str) -> int:
    """Peak of a step, including everything that is held between steps."""
    torch.manual_seed(0)
    network = Factorizer(case.channels, case.classes, **case.arch_kwargs, deep_supervision=True).to(device).train()
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


def measure(cases: Sequence[Case], device: str, known: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Estimate and measure each case that is not ``known``, and print the result; all rows after each."""
    rows = list(known)
    for case in cases:
        if case.name in [row["plan"] for row in rows]:
            continue
        network = Factorizer(case.channels, case.classes, **case.arch_kwargs)
        estimated = estimate(network.config, case.patch_size, case.batch_size, case.channels, case.classes, device).step
        measured = measured_bytes(case, device)
        row = {
            "plan": case.name,
            "patch_size": list(case.patch_size),
            "batch_size": case.batch_size,
            "widths": list(network.config.features_per_stage),
            "estimated_bytes": round(estimated),
            "measured_bytes": measured,
            "error": estimated / measured - 1,
        }
        print(f"{case.name}: {estimated / 1e6:.1f} MB estimated, {measured / 1e6:.1f} measured, {row['error']:+.1%}")
        rows.append(row)
        yield rows


def page(record: dict[str, Any]) -> str:
    """The table as Markdown."""
    rows = record["rows"]
    machine = record["machine"]
    largest = max(abs(row["error"]) for row in rows)
    lines = [
        "# The memory model against measured peaks",
        "",
        f"A training step under autocast on {machine['device']} ({machine['precision']}; torch {machine['torch']}, "
        f"{machine['processor']}), the planner's reserve left out. Written by `python -m benchmarks.memory_model`.",
        "",
        f"**Largest error {largest:.1%}**; positive errors are estimates above the measurement.",
        "",
        "| plan | patch, batch | widths | estimated MB | measured MB | error |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        patch = f"{' × '.join(map(str, row['patch_size']))}, {row['batch_size']}"
        lines.append(
            f"| {row['plan']} | {patch} | {', '.join(map(str, row['widths']))} | {row['estimated_bytes'] / 1e6:.0f} "
            f"| {row['measured_bytes'] / 1e6:.0f} | {row['error']:+.1%} |"
        )
    if machine["device"] == "cpu":
        lines += ["", *_CPU_NOTE]
    return "\n".join(lines) + "\n"


_CPU_NOTE = (
    "This table says nothing about a GPU: `--device cuda` measures one, and [gpu.md](../gpu.md) has figures for an",
    "H100. The CPU's figures count what torch's allocator hands out, with the memory that 3D depthwise convolutions",
    "take on a GPU (`benchmarks/half_precision_cpu.py`). On a GPU, norms and softmax keep float32 and the gradients of",
    "the losses differ; a test compares the model with what torch's CUDA autocast keeps of a forward pass and loss, on",
    "tensors without memory.",
)


def main() -> None:
    """Measure and write the tables."""
    cases = [Case(**case) for case in json.loads(CASES_FILE.read_text(encoding="utf-8"))]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(PRECISION), default="cpu")
    parser.add_argument("--plans", type=int, default=len(cases), metavar="N", help="measure only the first N plans")
    parser.add_argument("--output", type=Path, default=DOCS, metavar="DIR", help="folder for memory.md and memory.json")
    parser.add_argument(
        "--continue", action="store_true", dest="resume", help="keep what this machine has measured there"
    )
    options = parser.parse_args()
    machine = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "precision": str(PRECISION[options.device]).removeprefix("torch."),
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "memory.json"
    before = (read_complete_json(target) if options.resume else None) or {}
    known = before["rows"] if before.get("machine") == machine else []
    for rows in measure(cases[: options.plans], options.device, known):
        record = {"machine": machine, "rows": rows}
        write_text_atomically(target, json.dumps(record, indent=2) + "\n")
        write_text_atomically(options.output / "memory.md", page(record))


if __name__ == "__main__":
    main()
