"""Functions of single voxels, applied to a volume in slices that fit the cache.

Layer by layer, a chain of such functions reads and writes the volume many times and keeps several copies of it for the
backward pass. Here each slice goes through all of it at once and only the volume is kept; the backward pass computes a
slice again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SLICE_BYTES = 2**19  # of one tensor with a slice's voxels: two or three of them then fit a core's cache

# Of voxels (n, C), the index of their case, and other tensors; returns (n, H).
Function = Callable[..., Tensor]


def voxels_per_slice(x: Tensor, channels: int) -> int:
    """Number of voxels whose ``channels`` values, of x's type, stay in the cache."""
    return max(64, SLICE_BYTES // (channels * x.element_size()))


def apply(function: Function, x: Tensor, channels: int, tensors: Sequence[Tensor], out: Tensor) -> Tensor:
    """``function`` of all voxels of x (B, *spatial, C), in ``out`` (B, *spatial, H), which may be x; both contiguous.

    ``channels`` are the most that a voxel has on the way; ``tensors`` are further arguments.
    """
    for case, part in _slices(x, channels):
        _rows(out, case, part).copy_(function(_rows(x, case, part), case, *tensors))
    return out


def gradients(
    function: Function, x: Tensor, channels: int, tensors: Sequence[Tensor], grad: Tensor, out: Tensor
) -> list[Tensor]:
    """Gradients of x, written to ``out``, which may be ``grad``, and of ``tensors``; see ``apply``."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    sums = [torch.zeros_like(tensor) for tensor in tensors]
    for case, part in _slices(x, channels):
        with torch.enable_grad():
            voxels = _rows(x, case, part).detach().requires_grad_()
            result = function(voxels, case, *leaves)
        grad_voxels, *grads = torch.autograd.grad(result, (voxels, *leaves), _rows(grad, case, part))
        _rows(out, case, part).copy_(grad_voxels)
        for total, addition in zip(sums, grads, strict=True):
            total += addition
    return [out, *sums]


class InSlices(torch.autograd.Function):
    """``apply`` with gradients; the result is a new volume of the shape of x."""

    @staticmethod
    def forward(ctx: Any, function: Function, channels: int, x: Tensor, *tensors: Tensor) -> Tensor:
        ctx.function, ctx.channels = function, channels
        ctx.save_for_backward(x, *tensors)
        return apply(function, x, channels, tensors, torch.empty_like(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *tensors = ctx.saved_tensors
        grad = grad.contiguous()
        return None, None, *gradients(ctx.function, x, ctx.channels, tensors, grad, torch.empty_like(grad))


def _slices(x: Tensor, channels: int) -> list[tuple[int, slice]]:
    """Case and voxels of every slice of (B, *spatial, C) that fits the cache with ``channels`` channels."""
    voxels = x[0, ..., 0].numel()
    step = voxels_per_slice(x, channels)
    return [(case, slice(start, start + step)) for case in range(x.shape[0]) for start in range(0, voxels, step)]


def _rows(x: Tensor, case: int, part: slice) -> Tensor:
    """Voxels of a case as (n, C), a view of x."""
    return x[case].view(-1, x.shape[-1])[part]
