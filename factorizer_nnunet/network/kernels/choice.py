"""Whether the Triton kernels are used, and what their launches have in common."""

from __future__ import annotations

import functools
import importlib.util
import os

import torch
from torch import Tensor

VARIABLE = "nnUNet_factorizer_kernels"  # set it to 0 to use plain PyTorch on CUDA, too
_LEAST_CAPABILITY = (8, 0)  # of a GPU with tensor cores for bfloat16
_MOST_NUMBERS = 2**31
_HALF = (torch.float16, torch.bfloat16)


@functools.cache
def _are_possible() -> bool:
    """Whether Triton and every GPU of this machine can run them."""
    return (
        importlib.util.find_spec("triton") is not None
        and torch.version.cuda is not None
        and torch.cuda.is_available()
        and all(
            torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY for device in range(torch.cuda.device_count())
        )
    )


@torch.compiler.assume_constant_result
def _are_wanted() -> bool:
    # Asked here, where torch.compile runs Python itself: traced, is_exporting is true in compiled networks, too (2.11).
    if torch.compiler.is_exporting():
        return False
    return os.environ.get(VARIABLE, "1").strip().lower() not in ("0", "false", "f") and _are_possible()


def can_use_kernels(x: Tensor) -> bool:
    """Whether x is on a GPU for which there are kernels (NVIDIA's, from Ampere on), and they are not switched off.

    They count the numbers of a case in 32 bits, and an exported network has only operators that others know.
    """
    return x.is_cuda and 0 < x.numel() < _MOST_NUMBERS * x.shape[0] and _are_wanted()


def kernel_precision(x: Tensor) -> torch.dtype | None:
    """The type in which kernels compute products of x: what autocast asks for; None if x is not for kernels."""
    if not (can_use_kernels(x) and torch.is_autocast_enabled("cuda")):
        return None
    dtype = torch.get_autocast_dtype("cuda")
    return dtype if dtype in _HALF else None


def padded(count: int, least: int = 16) -> int:
    """The power of two that holds ``count`` channels; tensor cores want 16 at least."""
    return max(least, 1 << (count - 1).bit_length())


def programs(tiles: int, per_case: int) -> int:
    """How many programs share the tiles of a case when each keeps sums of its own."""
    return max(1, min(tiles, per_case))
