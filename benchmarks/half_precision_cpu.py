"""Depthwise 3D convolutions in half precision on a CPU, with the memory of a GPU's.

Without AVX-512, torch's half-precision kernels copy the input of a 3D convolution once for every voxel of its kernel,
27 times its size, and take a minute for what should take a second. No GPU kernel does so. Here the same convolution
and its gradients are computed in float32, by the kernels that train on CPUs; what is kept is the same, in half
precision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from factorizer_nnunet.network.ops.depthwise import cpu, reference


class _ComputedInFloat32(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight.to(x.dtype))
        with torch.autocast("cpu", enabled=False):
            return _torch_depthwise(x.float(), weight, bias).to(x.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, ...]:
        x, weight = ctx.saved_tensors
        with torch.enable_grad():
            leaves = [x.float().requires_grad_(), weight.float().requires_grad_()]
            bias = torch.zeros(weight.shape[0], requires_grad=True)
            y = cpu.DepthwiseConv3d.apply(*leaves, bias)
        grad_x, *others = torch.autograd.grad(y, [*leaves, bias], grad.float())
        return grad_x.to(x.dtype), *others


_torch_depthwise = reference.convolve_channels


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.ndim == 5 and x.dtype != torch.float32 and torch.is_autocast_enabled("cpu"):
        return _ComputedInFloat32.apply(x, weight, bias)
    return _torch_depthwise(x, weight, bias)


@contextlib.contextmanager
def like_a_gpu() -> Iterator[None]:
    """Within it, depthwise convolutions on the CPU need no more memory than on a GPU."""
    reference.convolve_channels = _depthwise
    try:
        yield
    finally:
        reference.convolve_channels = _torch_depthwise
