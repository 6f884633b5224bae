"""x + contract(gelu(expand(norm(x)))) in one walk over the volume: the hidden layer never leaves a processor.

A tile of voxels is read once, taken through norm, expansion and contraction a part of the hidden channels at a time,
and written once. The backward pass keeps only x: it forms the hidden layer again in two walks, one for the gradient of
x and of the norm, and one for those of the weights, which each program sums over its tiles. See ``residual_mlp`` for
the same on the CPU.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor, nn
from triton import language as tl

from factorizer_nnunet.network.kernels.choice import padded, programs
from factorizer_nnunet.network.kernels.operators import differentiable, operator
from factorizer_nnunet.network.kernels.tiles import gelu, gelu_slope, normalise, through_norm
from factorizer_nnunet.network.norm_linear_fusion import fold_scale_and_shift

MOST_CHANNELS = 128  # of x, for a tile to stay in registers
_VOXELS = 64  # of a tile
_HIDDEN = 64  # channels of the hidden layer at a time
_PROGRAMS = 528  # per case, that share the tiles where sums are kept: four for each processor of a large GPU


@triton.jit
def _hidden_part(normed, first, first_bias, part, channels, hidden, HIDDEN: tl.constexpr, CHANNELS: tl.constexpr):
    """Hidden channels of a tile before the GELU, the weights that lead to them, and which there are."""
    rows = part + tl.arange(0, HIDDEN)
    cols = tl.arange(0, CHANNELS)
    there = rows < hidden
    both = there[:, None] & (cols < channels)[None, :]
    weight = tl.load(first + rows[:, None] * channels + cols[None, :], both, 0.0)
    bias = tl.load(first_bias + rows, there, 0.0)
    return tl.dot(normed, tl.trans(weight)) + bias[None, :], weight, rows, there


@triton.jit
def _forward(
    x,
    y,
    scale,
    shift,
    first,
    first_bias,
    second,
    second_bias,
    voxels,
    channels,
    hidden,
    eps,
    layer: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    case = tl.program_id(1)
    rows = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    cols = tl.arange(0, CHANNELS)
    exists = cols < channels
    inside = (rows < voxels)[:, None] & exists[None, :]
    offsets = rows[:, None] * channels + cols[None, :]
    start = case.to(tl.int64) * voxels * channels
    x, y = x + start, y + start
    of_norm = cols if layer else case * channels + cols
    factor = tl.load(scale + of_norm, exists, 0.0)
    offset = tl.load(shift + of_norm, exists, 0.0)
    given = tl.load(x + offsets, inside, 0.0)
    wide = given.to(tl.float32)
    base, rstd = normalise(wide, exists, channels, eps, layer)
    normed = (base * factor[None, :] + offset[None, :]).to(given.dtype)
    result = wide + tl.load(second_bias + cols, exists, 0.0)[None, :]
    for part in range(0, hidden, HIDDEN):
        before, weight, chosen, there = _hidden_part(
            normed, first, first_bias, part, channels, hidden, HIDDEN, CHANNELS
        )
        back = tl.load(second + chosen[:, None] * channels + cols[None, :], there[:, None] & exists[None, :], 0.0)
        result = tl.dot(gelu(before).to(given.dtype), back, result)
    tl.store(y + offsets, result.to(y.dtype.element_ty), inside)


@triton.jit
def _gradient_of_input(
    x,
    grad,
    grad_x,
    sums,
    scale,
    shift,
    first,
    first_bias,
    second,
    voxels,
    channels,
    hidden,
    eps,
    layer: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    """sums: (cases, programs, 3 C), gradients of scale, shift and the last bias."""
    case = tl.program_id(1)
    cols = tl.arange(0, CHANNELS)
    exists = cols < channels
    start = case.to(tl.int64) * voxels * channels
    x, grad, grad_x = x + start, grad + start, grad_x + start
    of_norm = cols if layer else case * channels + cols
    factor = tl.load(scale + of_norm, exists, 0.0)
    offset = tl.load(shift + of_norm, exists, 0.0)
    of_scale = tl.zeros([CHANNELS], tl.float32)
    of_shift = tl.zeros([CHANNELS], tl.float32)
    of_bias = tl.zeros([CHANNELS], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(voxels, VOXELS), tl.num_programs(0)):
        rows = tile * VOXELS + tl.arange(0, VOXELS)
        inside = (rows < voxels)[:, None] & exists[None, :]
        offsets = rows[:, None] * channels + cols[None, :]
        given = tl.load(x + offsets, inside, 0.0)
        above = tl.load(grad + offsets, inside, 0.0)
        base, rstd = normalise(given.to(tl.float32), exists, channels, eps, layer)
        normed = (base * factor[None, :] + offset[None, :]).to(given.dtype)
        through = tl.zeros([VOXELS, CHANNELS], tl.float32)
        for part in range(0, hidden, HIDDEN):
            before, weight, chosen, there = _hidden_part(
                normed, first, first_bias, part, channels, hidden, HIDDEN, CHANNELS
            )
            back = tl.load(second + chosen[:, None] * channels + cols[None, :], there[:, None] & exists[None, :], 0.0)
            slope = tl.dot(above, tl.trans(back)) * gelu_slope(before)
            through = tl.dot(slope.to(given.dtype), weight, through)
        of_scale += tl.sum(through * base, 0)
        of_shift += tl.sum(through, 0)
        wide = above.to(tl.float32)
        of_bias += tl.sum(wide, 0)
        result = wide + through_norm(through, base, rstd, factor, channels, layer)
        tl.store(grad_x + offsets, result.to(grad_x.dtype.element_ty), inside)
    at = sums + (case * tl.num_programs(0) + tl.program_id(0)) * 3 * channels + cols
    tl.store(at, of_scale, exists)
    tl.store(at + channels, of_shift, exists)
    tl.store(at + 2 * channels, of_bias, exists)


@triton.jit
def _gradient_of_weights(
    x,
    grad,
    sums,
    scale,
    shift,
    first,
    first_bias,
    second,
    voxels,
    channels,
    hidden,
    eps,
    layer: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    """sums: (cases, programs, 2 H C + H), gradients of the first weights, the second, transposed, and the bias."""
    case = tl.program_id(2)
    part = tl.program_id(1) * HIDDEN
    cols = tl.arange(0, CHANNELS)
    exists = cols < channels
    start = case.to(tl.int64) * voxels * channels
    x, grad = x + start, grad + start
    of_norm = cols if layer else case * channels + cols
    factor = tl.load(scale + of_norm, exists, 0.0)
    offset = tl.load(shift + of_norm, exists, 0.0)
    chosen = part + tl.arange(0, HIDDEN)
    there = chosen < hidden
    both = there[:, None] & exists[None, :]
    weights = chosen[:, None] * channels + cols[None, :]
    back = tl.load(second + weights, both, 0.0)
    sum_first = tl.zeros([HIDDEN, CHANNELS], tl.float32)
    sum_second = tl.zeros([HIDDEN, CHANNELS], tl.float32)
    sum_bias = tl.zeros([HIDDEN], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(voxels, VOXELS), tl.num_programs(0)):
        rows = tile * VOXELS + tl.arange(0, VOXELS)
        inside = (rows < voxels)[:, None] & exists[None, :]
        offsets = rows[:, None] * channels + cols[None, :]
        given = tl.load(x + offsets, inside, 0.0)
        above = tl.load(grad + offsets, inside, 0.0)
        base, rstd = normalise(given.to(tl.float32), exists, channels, eps, layer)
        normed = (base * factor[None, :] + offset[None, :]).to(given.dtype)
        before, weight, same_rows, same_there = _hidden_part(
            normed, first, first_bias, part, channels, hidden, HIDDEN, CHANNELS
        )
        slope = tl.dot(above, tl.trans(back)) * gelu_slope(before)
        # Voxels beyond the volume have a hidden layer of their own, but no gradient.
        sum_bias += tl.sum(slope, 0)
        sum_first = tl.dot(tl.trans(slope.to(given.dtype)), normed, sum_first)
        sum_second = tl.dot(tl.trans(gelu(before).to(given.dtype)), above, sum_second)
    row = sums + (case.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * hidden * (2 * channels + 1)
    tl.store(row + weights, sum_first, both)
    tl.store(row + hidden * channels + weights, sum_second, both)
    tl.store(row + 2 * hidden * channels + chosen, sum_bias, there)


def residual_mlp(x: Tensor, norm: nn.Module, expand: nn.Linear, contract: nn.Linear, dtype: torch.dtype) -> Tensor:
    """x + contract(gelu(expand(norm(x)))) for an instance or layer norm, in half precision ``dtype``.

    x: (B, *spatial, C) with at most ``MOST_CHANNELS`` channels; same shape out.
    """
    x = x.to(dtype)
    scale, shift, eps = fold_scale_and_shift(norm, x)
    return _residual_mlp(x, scale, shift, expand.weight, expand.bias, contract.weight, contract.bias, eps)


def _like_residual_mlp(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@operator("residual_mlp", _like_residual_mlp)
def _residual_mlp(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    first: Tensor,
    first_bias: Tensor,
    second: Tensor,
    second_bias: Tensor,
    eps: float,
) -> Tensor:
    """scale, shift: (1, C) of a layer norm, or (B, C) of a folded norm, with eps < 0; first: (H, C); second: (C, H)."""
    x = x.contiguous()
    y = torch.empty_like(x)
    cases, voxels, channels, hidden = _sizes(x, first)
    _forward[(triton.cdiv(voxels, _VOXELS), cases)](
        x,
        y,
        scale.contiguous(),
        shift.contiguous(),
        first.to(x.dtype).contiguous(),
        first_bias,
        second.mT.to(x.dtype).contiguous(),
        second_bias,
        voxels,
        channels,
        hidden,
        eps,
        eps >= 0,
        _VOXELS,
        padded(channels),
        _part(hidden),
    )
    return y


def _like_residual_mlp_backward(grad, x, scale, shift, first, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    hidden, channels = first.shape
    sums = x.new_empty((x.shape[0], 3 * channels), dtype=torch.float32)
    of_weights = sums.new_empty(x.shape[0], hidden * (2 * channels + 1))
    return torch.empty_like(x, memory_format=torch.contiguous_format), sums, of_weights


@operator("residual_mlp_backward", _like_residual_mlp_backward)
def _residual_mlp_backward(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    first: Tensor,
    first_bias: Tensor,
    second: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of x, and in a row for each case those of scale, shift and last bias, (B, 3 C), and of the first
    weights, the second, transposed, and the first bias, (B, 2 H C + H).
    """
    x, grad = x.contiguous(), grad.contiguous()
    cases, voxels, channels, hidden = _sizes(x, first)
    norm = (scale.contiguous(), shift.contiguous())
    weights = (first.to(x.dtype).contiguous(), first_bias, second.mT.to(x.dtype).contiguous())
    given = (*norm, *weights, voxels, channels, hidden, eps, eps >= 0)
    tile = 128 if channels <= 32 else 64
    count = programs(triton.cdiv(voxels, tile), _PROGRAMS)
    grad_x = torch.empty_like(x)
    sums = x.new_empty((cases, count, 3 * channels), dtype=torch.float32)
    part = min(32, padded(hidden))
    _gradient_of_input[(count, cases)](x, grad, grad_x, sums, *given, tile, padded(channels), part)
    tile, part = 64 if channels <= 64 else 32, _part(hidden)
    parts = triton.cdiv(hidden, part)
    count = programs(triton.cdiv(voxels, tile), max(1, _PROGRAMS // parts))
    of_weights = x.new_empty((cases, count, hidden * (2 * channels + 1)), dtype=torch.float32)
    _gradient_of_weights[(count, parts, cases)](x, grad, of_weights, *given, tile, padded(channels), part)
    return grad_x, sums.sum(1), of_weights.sum(1)


def _sizes(x: Tensor, first: Tensor) -> tuple[int, int, int, int]:
    """Cases, voxels of a case, channels and hidden channels."""
    return x.shape[0], x[0, ..., 0].numel(), x.shape[-1], first.shape[0]


def _part(hidden: int) -> int:
    return min(_HIDDEN, padded(hidden))


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    *tensors, _, ctx.eps = inputs  # all but the last bias
    ctx.save_for_backward(*tensors)


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, per_case, of_weights = _residual_mlp_backward(grad, *ctx.saved_tensors, ctx.eps)
    hidden, channels = ctx.saved_tensors[3].shape
    per_case = per_case.unflatten(1, (3, channels))
    last_bias = per_case[:, 2].sum(0)
    if ctx.eps >= 0:  # a layer norm has the same scale and shift for all cases
        per_case = per_case.sum(0, keepdim=True)
    first, second, bias = of_weights.sum(0).split((hidden * channels, hidden * channels, hidden))
    matrices = first.reshape(hidden, channels), bias, second.reshape(hidden, channels).mT
    return grad_x, per_case[:, 0], per_case[:, 1], *matrices, last_bias, None


differentiable(_residual_mlp, _backward, _keep)
