"""The residual MLP branch in one pass over the volume: the hidden layer never leaves a multiprocessor.

A tile of voxels is read once, goes through norm, expansion and contraction a part of the hidden channels at a time, and
is written once. The backward pass keeps only x. It computes the hidden layer again in two passes: one for the gradients
of x and of the norm, and one for those of the weights, which each program sums over its tiles.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor, nn

from factorizer_nnunet.network.ops.launch import like_first, num_programs, operator, padded, wrap_triton
from factorizer_nnunet.network.ops.mlp.triton_kernels import forward, input_gradient, weight_gradient
from factorizer_nnunet.network.ops.norm.linear_fusion import FusableNorm, fold_scale_and_shift

MAX_CHANNELS = 128  # of x, for a tile to stay in registers
_BLOCK_VOXELS = 64
_MAX_BLOCK_HIDDEN = 64
_MAX_PROGRAMS = 528  # per case, where sums are accumulated: four for each multiprocessor of a large GPU


def residual_mlp(x: Tensor, norm: FusableNorm, expand: nn.Linear, contract: nn.Linear, dtype: torch.dtype) -> Tensor:
    """As ``reference.residual_mlp``, in half precision ``dtype``, for at most ``MAX_CHANNELS`` channels of x."""
    x = x.to(dtype)
    scale, shift, eps = fold_scale_and_shift(norm, x)
    return _residual_mlp(x, scale, shift, expand.weight, expand.bias, contract.weight, contract.bias, eps)


@operator("residual_mlp", like_first)
def _residual_mlp(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    expand: Tensor,
    expand_bias: Tensor,
    contract: Tensor,
    contract_bias: Tensor,
    eps: float,
) -> Tensor:
    """scale, shift, eps: from ``fold_scale_and_shift``; expand: (H, C); contract: (C, H)."""
    x = x.contiguous()
    y = torch.empty_like(x)
    voxels, channels, hidden, arguments = _arguments(x, scale, shift, expand, expand_bias, contract, eps)
    grid = (triton.cdiv(voxels, _BLOCK_VOXELS), len(x))
    wrap_triton(forward)[grid](x, y, contract_bias, *arguments, _BLOCK_VOXELS, padded(channels), _block_hidden(hidden))
    return y


def _fake_residual_mlp_backward(
    grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, expand: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    hidden, channels = expand.shape
    sums = x.new_empty((x.shape[0], 3 * channels), dtype=torch.float32)
    weight_sums = sums.new_empty(x.shape[0], hidden * (2 * channels + 1))
    return like_first(x), sums, weight_sums


@operator("residual_mlp_backward", _fake_residual_mlp_backward)
def _residual_mlp_backward(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    expand: Tensor,
    expand_bias: Tensor,
    contract: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of x; those of scale, shift and contract_bias for each case, (B, 3 C); and those of expand, contract
    (transposed) and expand_bias for each case, (B, 2 H C + H).
    """
    x, grad = x.contiguous(), grad.contiguous()
    voxels, channels, hidden, arguments = _arguments(x, scale, shift, expand, expand_bias, contract, eps)
    cases = len(x)
    block_voxels = 128 if channels <= 32 else 64
    programs = num_programs(triton.cdiv(voxels, block_voxels), _MAX_PROGRAMS)
    grad_x = torch.empty_like(x)
    sums = x.new_empty((cases, programs, 3 * channels), dtype=torch.float32)
    block_hidden = min(32, padded(hidden))
    wrap_triton(input_gradient)[(programs, cases)](
        x, grad, grad_x, sums, *arguments, block_voxels, padded(channels), block_hidden
    )
    block_voxels, block_hidden = 64 if channels <= 64 else 32, _block_hidden(hidden)
    parts = triton.cdiv(hidden, block_hidden)
    programs = num_programs(triton.cdiv(voxels, block_voxels), max(1, _MAX_PROGRAMS // parts))
    weight_sums = x.new_empty((cases, programs, hidden * (2 * channels + 1)), dtype=torch.float32)
    wrap_triton(weight_gradient)[(programs, parts, cases)](
        x, grad, weight_sums, *arguments, block_voxels, padded(channels), block_hidden
    )
    return grad_x, sums.sum(1), weight_sums.sum(1)


def _arguments(
    x: Tensor, scale: Tensor, shift: Tensor, expand: Tensor, expand_bias: Tensor, contract: Tensor, eps: float
) -> tuple[int, int, int, tuple[Tensor | float, ...]]:
    """Voxels of a case, channels, hidden channels; and what every kernel takes after the pointers of its own."""
    sizes = x[0, ..., 0].numel(), x.shape[-1], expand.shape[0]
    norm = scale.contiguous(), shift.contiguous()
    weights = expand.to(x.dtype).contiguous(), expand_bias, contract.mT.to(x.dtype).contiguous()
    return *sizes, (*norm, *weights, *sizes, eps, eps >= 0)


def _block_hidden(hidden: int) -> int:
    return min(_MAX_BLOCK_HIDDEN, padded(hidden))


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, _, ctx.eps = inputs  # all but the last bias
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, per_case, weight_sums = _residual_mlp_backward(grad, *ctx.saved_tensors, ctx.eps)
    hidden, channels = ctx.saved_tensors[3].shape
    per_case = per_case.unflatten(1, (3, channels))
    contract_bias = per_case[:, 2].sum(0)
    if ctx.eps >= 0:  # a layer norm has the same scale and shift for all cases
        per_case = per_case.sum(0, keepdim=True)
    expand, contract, expand_bias = weight_sums.sum(0).split((hidden * channels, hidden * channels, hidden))
    weights = expand.reshape(hidden, channels), expand_bias, contract.reshape(hidden, channels).mT
    return grad_x, per_case[:, 0], per_case[:, 1], *weights, contract_bias, None


_residual_mlp.differentiable(_backward, _setup_context)
