"""Time, memory and multiply-adds of networks, alternating in one process so that ratios mean something."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

# Processor time, of all threads together, is what a busy machine leaves comparable.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
FORWARD, TRAINING = "forward", "forward + backward"
MODES = (FORWARD, TRAINING)


@dataclass(frozen=True)
class Setting:
    """How the networks run."""

    device: str  # "cpu" or "cuda"
    dtype: str  # "float32", or "bfloat16" and "float16" by autocast
    compiled: bool

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context of a forward pass."""
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, getattr(torch, self.dtype))


def one_pass(network: nn.Module, x: Tensor, setting: Setting, mode: str) -> None:
    """One forward pass as in inference, or one with its backward pass as in training."""
    if mode == FORWARD:
        with torch.no_grad(), setting.autocast():
            network(x)
        return
    with setting.autocast():
        y = network(x)
    y.float().square().mean().backward()
    network.zero_grad(set_to_none=True)


def seconds(
    networks: Mapping[str, nn.Module], x: Tensor, setting: Setting, mode: str, rounds: int, clock: str = "wall"
) -> dict[str, list[float]]:
    """Times of ``rounds`` passes of each network, taking turns; they must have run before (``peak_bytes``).

    ``clock`` is a key of CLOCKS.
    """
    now = CLOCKS[clock]
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds):
        for name, network in networks.items():
            network.train(mode == TRAINING)
            _wait(setting)
            start = now()
            one_pass(network, x, setting, mode)
            _wait(setting)
            times[name].append(now() - start)
    return times


def ratios(times: Mapping[str, list[float]], reference: str) -> dict[str, float]:
    """How many times faster than ``reference`` each network is: the median over turns, whose passes are neighbours."""
    return {
        name: statistics.median(theirs / ours for theirs, ours in zip(times[reference], values, strict=True))
        for name, values in times.items()
    }


def peak_bytes(network: nn.Module, x: Tensor, setting: Setting, mode: str) -> int:
    """Most bytes allocated at a time during a pass, beyond what was there before: parameters and input not counted.

    A compiled network must have run before, or its compilation counts, too.
    """
    network.train(mode == TRAINING)
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        one_pass(network, x, setting, mode)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        one_pass(network, x, setting, mode)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    total = peak = 0
    for event in events:
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def multiply_adds(network: nn.Module, x: Tensor) -> int:
    """Multiply-adds of a forward pass in convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(x)
    return counter.get_total_flops() // 2


def machine_rates(device: str) -> dict[str, float]:
    """Copy bandwidth in bytes/s (read and write counted) and multiply-adds/s of a large float32 product."""
    source = torch.ones(64 * 2**20, device=device)
    target = torch.empty_like(source)
    matrix = torch.ones(2048, 2048, device=device)
    product = torch.empty_like(matrix)
    setting = Setting(device, "float32", False)
    copying = _best(lambda: target.copy_(source), setting)
    multiplying = _best(lambda: torch.mm(matrix, matrix, out=product), setting)
    return {"bytes_per_s": 2 * source.nbytes / copying, "multiply_adds_per_s": 2048**3 / multiplying}


def _best(function: Callable[[], object], setting: Setting, repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        _wait(setting)
        start = time.perf_counter()
        function()
        _wait(setting)
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(setting: Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.synchronize()
