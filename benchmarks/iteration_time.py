"""Seconds per training iteration of nnU-Net's U-Net and of Factorizer for the same plans.

    python -m benchmarks.iteration_time $nnUNet_preprocessed/DATASET/nnUNetPlans.json 3d_fullres TARGET.json

Both take turns in one process, so that the ratio holds on a shared machine, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.planning.architecture import factorizer_architecture
from factorizer_nnunet.training.trainer import MAX_GRADIENT_NORM, build_optimizer

ROUNDS = 25
WARM_UP = 3  # rounds that are not counted


def measure_iterations(plans: Path, configuration: str, threads: int) -> dict[str, Any]:
    """Time forward, loss, backward and optimizer step on random data; returns medians and their ratio."""
    torch.set_num_threads(threads)
    manager = PlansManager(json.loads(plans.read_text()))
    settings = manager.get_configuration(configuration)
    dataset = json.loads((plans.parent / "dataset.json").read_text())
    channels, classes = len(dataset["channel_names"]), len(dataset["labels"])
    stock = {
        "network_class_name": settings.network_arch_class_name,
        "arch_kwargs": settings.network_arch_init_kwargs,
        "_kw_requires_import": settings.network_arch_init_kwargs_req_import,
    }
    ours = factorizer_architecture(stock["arch_kwargs"], settings.spacing)
    data = torch.randn(settings.batch_size, channels, *settings.patch_size)
    steps: dict[str, Callable[[], None]] = {}
    parameters = {}
    for name, architecture in (("nnU-Net", stock), ("Factorizer", ours)):
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            channels,
            classes,
            deep_supervision=True,
        )
        parameters[name] = sum(p.numel() for p in network.parameters())
        recipe = _sgd if name == "nnU-Net" else _adamw
        steps[name] = _training_step(network, data, recipe(network))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values[WARM_UP:]) for name, values in times.items()}
    # Neighbouring iterations see the same load on a shared machine, so their ratio is steadier than that of medians.
    pairs = list(zip(times["nnU-Net"], times["Factorizer"], strict=True))[WARM_UP:]
    return {
        "seconds_per_iteration": medians,
        "ratio": statistics.median(theirs / ours for theirs, ours in pairs),
        "parameters": parameters,
        "patch_size": [int(v) for v in settings.patch_size],
        "batch_size": settings.batch_size,
        "threads": threads,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores used",
        "versions": {name: version(name) for name in ("torch", "nnunetv2", "factorizer_nnunet")},
    }


def _sgd(network: torch.nn.Module) -> torch.optim.Optimizer:
    """nnU-Net's optimizer."""
    return torch.optim.SGD(network.parameters(), 1e-3, momentum=0.99, nesterov=True)


def _adamw(network: torch.nn.Module) -> torch.optim.Optimizer:
    """Our trainer's, with its second clipping of the gradients."""
    optimizer = build_optimizer(network)

    def clip(*_: object) -> None:  # a hook that returned the norm would replace the step's arguments
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def _training_step(
    network: torch.nn.Module, data: torch.Tensor, optimizer: torch.optim.Optimizer
) -> Callable[[], None]:
    """One iteration as nnU-Net's trainer does it; cross entropy stands for its loss, which is the same for both."""
    with torch.no_grad():
        shapes = [tuple(output.shape) for output in network(data)]
    targets = [torch.randint(0, shape[1], (shape[0], *shape[2:])) for shape in shapes]
    weights = np.array([1 / 2**i for i in range(len(shapes))])
    loss = DeepSupervisionWrapper(torch.nn.CrossEntropyLoss(), weights / weights.sum())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(data), targets).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    return step


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path, help="stock plans with dataset.json in the same folder")
    parser.add_argument("configuration", help="such as 3d_fullres")
    parser.add_argument("target", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default %(default)s)")
    options = parser.parse_args()
    result = measure_iterations(options.plans, options.configuration, options.threads)
    options.target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
