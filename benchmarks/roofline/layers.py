"""Time, bytes and multiply-adds of every layer of a network in a forward pass."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.literal import LiteralFactorizer
from factorizer_nnunet.network import Factorizer

MERGES = "decoder: up, skip, adapter, head"


@dataclass
class Layer:
    """One layer in a forward pass."""

    seconds: float
    needed_bytes: int  # its input read and its output written once
    multiply_adds: int


def layers_of(network: Factorizer | LiteralFactorizer) -> dict[str, list[nn.Module]]:
    """Modules by layer, the same layers for both; what is left of a pass is ``MERGES``."""
    literal = isinstance(network, LiteralFactorizer)
    ours = network.network if literal else network
    encoder, decoder = ours.encoder, ours.decoder
    down = [d.conv if literal else d for d in encoder.downsamples]
    result = {"stem": [encoder.stem.conv if literal else encoder.stem]}
    for stage in range(len(encoder.stages)):
        if stage:
            result[f"down to stage {stage}"] = [down[stage - 1]]
        result[f"encoder blocks, stage {stage}"] = list(network.down[stage] if literal else encoder.stages[stage])
    for stage in reversed(range(len(decoder.stages))):
        result[f"decoder blocks, stage {stage}"] = list(network.up[stage] if literal else decoder.stages[stage])
    return result


@torch.no_grad()
def measure_layers(network: Factorizer | LiteralFactorizer, x: Tensor, rounds: int) -> dict[str, Layer]:
    """Medians over ``rounds`` forward passes, after one that warms up and counts."""
    network.eval()
    names = {module: name for name, modules in layers_of(network).items() for module in modules}
    seconds: dict[str, list[float]] = defaultdict(list)
    running: dict[str, float] = defaultdict(float)
    needed: dict[str, int] = defaultdict(int)
    adds: dict[str, int] = defaultdict(int)
    counter = FlopCounterMode(display=False)

    def entering(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        started[module] = time.perf_counter(), counter.get_total_flops()

    def leaving(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        start, before = started.pop(module)
        running[names[module]] += time.perf_counter() - start
        adds[names[module]] += (counter.get_total_flops() - before) // 2
        needed[names[module]] += sum(t.nbytes for t in (*inputs, output))

    started: dict[nn.Module, tuple[float, int]] = {}
    handles = [
        hook for m in names for hook in (m.register_forward_pre_hook(entering), m.register_forward_hook(leaving))
    ]
    try:
        with counter:
            network(x)
        counted, bytes_needed = dict(adds), dict(needed)
        counted[MERGES] = counter.get_total_flops() // 2 - sum(counted.values())
        for _ in range(rounds):
            running.clear()
            start = time.perf_counter()
            network(x)
            total = time.perf_counter() - start
            for name, value in {**running, MERGES: total - sum(running.values())}.items():
                seconds[name].append(value)
    finally:
        for handle in handles:
            handle.remove()
    bytes_needed[MERGES] = _merge_bytes(network, x)
    return {
        name: Layer(statistics.median(values), bytes_needed[name], counted[name]) for name, values in seconds.items()
    }


def _merge_bytes(network: Factorizer | LiteralFactorizer, x: Tensor) -> int:
    """Skip and features from below read, result written, in every decoder stage; and the head's input and output."""
    config = (network.network if isinstance(network, LiteralFactorizer) else network).config
    widths, voxels = config.features_per_stage, [x.shape[0] * x[0, 0].numel()]
    for stride in config.strides[1:]:
        voxels.append(voxels[-1] // torch.tensor(stride).prod().item())
    merges = sum(2 * voxels[s] * widths[s] + voxels[s + 1] * widths[s + 1] for s in range(len(widths) - 1))
    heads = voxels[0] * (widths[0] + network_classes(network))
    return (merges + heads) * x.element_size()


def network_classes(network: Factorizer | LiteralFactorizer) -> int:
    """Output channels."""
    ours = network.network if isinstance(network, LiteralFactorizer) else network
    return ours.decoder.seg_layers[0].out_features
