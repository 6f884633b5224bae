"""The device that predicts, and its number of threads."""

from __future__ import annotations

import multiprocessing
import os

import torch

from factorizer_nnunet.core.errors import UserError


def chosen_device(name: str) -> torch.device:
    """Return a device and set the number of threads as nnU-Net's command does.

    Args:
        name: ``cuda``, ``cpu`` or ``mps``.

    Raises:
        UserError: this device is not available.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available. Name another with -device cpu or -device mps")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("no MPS device is available. Name another with -device cpu or -device cuda")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if name == "cuda":
        torch.set_num_threads(1)  # more do not help nnU-Net there
    elif name == "cpu":
        torch.set_num_threads(max(1, int(threads)) if threads.isdecimal() else multiprocessing.cpu_count())
    return torch.device(name)
