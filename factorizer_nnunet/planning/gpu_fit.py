"""Which planned sizes the GPU at hand has memory for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from factorizer_nnunet.planning.memory import GB
from factorizer_nnunet.planning.sizes import SIZES


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, and its memory in bytes."""

    name: str
    memory: int


def gpu_at_hand() -> Gpu | None:
    """The CUDA device with the least memory; None without any. Trainings may use each of them."""
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return min((Gpu(card.name, card.total_memory) for card in cards), key=lambda gpu: gpu.memory, default=None)


def gpu_advice(gpu: Gpu, target_gb: float) -> str:
    """A line about a GPU and plans for ``target_gb``: which sizes fit, and what to do if the plans do not."""
    has = gpu.memory / GB
    fitting = [name for name, size in SIZES.items() if size.memory_target_gb <= has]
    here = f"GPU here: {gpu.name} with {has:.1f} GB"
    if target_gb > has:
        smaller = f"--gpu-memory-target {math.floor(10 * has) / 10}"
        return f"WARNING: {here}, less than the {target_gb:g} GB of these plans: for it, plan with {smaller}"
    sizes = f"sizes {', '.join(fitting)}" if fitting else "no size"
    return f"{here}, memory for {sizes}; these plans are for {target_gb:g} GB, and larger is not known to be better"
