"""The device that predicts, and its number of threads."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator

import torch

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.processes import core_count

_MOST_WORKERS = 3  # for each of reading and writing, as in nnU-Net
_CORES_A_WORKER = 8  # of a CPU that predicts: each worker takes one from the network


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


def worker_count(device: str) -> int:
    """The number of processes to read images, and likewise to write segmentations, that fits a device."""
    cores = core_count()
    return min(_MOST_WORKERS, cores // _CORES_A_WORKER if device == "cpu" else max(1, (cores - 1) // 2))


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with a number of threads within the block; threads that start there inherit it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
