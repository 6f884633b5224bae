"""Where the time of the published form goes, before and after: ``docs/roofline.md``.

    python -m benchmarks.roofline

Measures, in one run: copy bandwidth and matrix rate; every part of a block as published and after each change, taking
turns; and every layer of the whole network, as published (``benchmarks/speed/literal.py``) and as it is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.roofline.layers import measure_layers
from benchmarks.roofline.report import page
from benchmarks.roofline.steps import Step, steps
from benchmarks.speed.literal import LiteralFactorizer
from benchmarks.speed.measure import machine_rates
from benchmarks.speed.traffic import traffic_of
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.network import build_preset


def forward_seconds(step: Step) -> float:
    """Of one pass as in inference."""
    with torch.no_grad():
        start = time.perf_counter()
        step.function(*step.inputs)
        return time.perf_counter() - start


def training_seconds(step: Step) -> float:
    """Of one pass with its backward pass."""
    inputs = [value.detach().requires_grad_() for value in step.inputs]
    start = time.perf_counter()
    result = step.function(*inputs)
    result.backward(torch.ones_like(result))
    seconds = time.perf_counter() - start
    for module in step.weights:
        module.zero_grad(set_to_none=True)
    return seconds


def measure_steps(side: int, batch: int, rounds: int) -> list[dict]:
    """Every step with its times, its traffic and its multiply-adds."""
    measured = steps(side, batch)
    times = [([], []) for _ in measured]
    for turn, (step, (forward, training)) in tqdm(
        itertools.product(range(rounds + 1), list(zip(measured, times, strict=True))), total=(rounds + 1) * len(times)
    ):
        seconds = forward_seconds(step), training_seconds(step)
        if turn:
            forward.append(seconds[0])
            training.append(seconds[1])
    result = []
    for step, (forward, training) in zip(measured, times, strict=True):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            output = step.function(*step.inputs)
        result.append(
            {
                "part": step.part,
                "change": step.change,
                "forward_s": statistics.median(forward),
                "training_s": statistics.median(training),
                "moved_bytes": traffic_of(lambda step=step: step.function(*step.inputs)),
                "needed_bytes": sum(t.nbytes for t in (*step.inputs, output)),
                "multiply_adds": counter.get_total_flops() // 2,
            }
        )
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128, help="voxels along each axis (default 128)")
    parser.add_argument("--batch", type=int, default=1, help="batch size (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each step and network (default 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all cores)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes (default docs)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    size = [options.side] * 3
    network = build_preset("swin", 4, 4, size)
    x = torch.randn(options.batch, 4, *size)
    result = {
        "side": options.side,
        "batch": options.batch,
        "rounds": options.rounds,
        "threads": options.threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "nnunetv2", "factorizer_nnunet")},
        "rates": machine_rates("cpu"),
        "steps": measure_steps(options.side, options.batch, options.rounds),
        "layers": {
            name: {layer: vars(values) for layer, values in measure_layers(net, x, options.rounds).items()}
            for name, net in (("as published", LiteralFactorizer(network, size)), ("now", network))
        },
    }
    options.docs.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.docs / "roofline.json", json.dumps(result, indent=1))
    write_text_atomically(options.docs / "roofline.md", page(result))
    print(f"wrote {options.docs / 'roofline.md'}")


if __name__ == "__main__":
    main()
