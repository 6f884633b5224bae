"""Rank-1 NMF of all windows of a hidden layer that lies in memory: for wide layers, see ``mixer`` for narrow ones.

``gram.mix_families`` in three calls: sums of blocks, projections of windows, product; a program has some heads of a
block. The backward pass is two walks: H being the hidden layer, G the gradient of H P, S and s those of the sums,
dL/dP = Hᵀ G and dL/dH = G Pᵀ + H (S + Sᵀ) + 1 sᵀ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor
from triton import language as tl

from factorizer_nnunet.network.gram import weights
from factorizer_nnunet.network.kernels.blocks import (
    Geometry,
    geometry,
    last_of_windows,
    of_windows,
    per_head,
    places,
    unpacked,
)
from factorizer_nnunet.network.kernels.choice import padded
from factorizer_nnunet.network.kernels.operators import differentiable, operator
from factorizer_nnunet.network.kernels.window_projections import (
    membership,
    project_windows,
    project_windows_backward,
)
from factorizer_nnunet.network.windows import Family

_GROUP = 32  # channels of the heads that a program has
_MOST_VOXELS = 64  # of a tile


@triton.jit
def _sum_blocks(
    hidden,
    sums,
    channels,
    head_dim,
    group,
    blocks,
    d_size, h_size, w_size, d_start, h_start, w_start, d_turn, h_turn, w_turn, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    precision: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """sums: (cases, blocks, heads, d, d + 1)."""
    block, case = tl.program_id(0), tl.program_id(2).to(tl.int64)
    cols = tl.program_id(1) * group + tl.arange(0, CHANNELS)
    exists = (tl.arange(0, CHANNELS) < group) & (cols < channels)
    hidden += case * d_size * h_size * w_size * channels
    gram = tl.zeros([CHANNELS, CHANNELS], tl.float32)
    total = tl.zeros([CHANNELS], tl.float32)
    for part in range(0, d_block * h_block * w_block, VOXELS):
        voxels, inside = places(
            part + tl.arange(0, VOXELS), block, d_size, h_size, w_size, d_start, h_start, w_start,
            d_turn, h_turn, w_turn, h_count, w_count, d_block, h_block, w_block,
        )  # fmt: skip
        both = inside[:, None] & exists[None, :]
        given = tl.load(hidden + voxels[:, None] * channels + cols[None, :], both, 0.0)
        gram = tl.dot(tl.trans(given), given, gram, input_precision=precision)
        total += tl.sum(given.to(tl.float32), 0)
    place = sums + (case * blocks + block) * channels * (head_dim + 1)
    at, same = per_head(place, head_dim + 1, cols, exists, head_dim)
    tl.store(at, gram, same)
    tl.store(place + cols * (head_dim + 1) + head_dim, total, exists)


@triton.jit
def _apply(
    hidden,
    above,
    y,
    projections,
    table,
    share,
    channels,
    head_dim,
    group,
    blocks,
    windows,
    shifts,
    d_size, h_size, w_size, d_start, h_start, w_start, d_turn, h_turn, w_turn, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    adds: tl.constexpr,
    precision: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """y = share · H P, and ``above`` to it if ``adds``; projections: (cases, windows, heads, d, d)."""
    block, case = tl.program_id(0), tl.program_id(2).to(tl.int64)
    cols = tl.program_id(1) * group + tl.arange(0, CHANNELS)
    exists = (tl.arange(0, CHANNELS) < group) & (cols < channels)
    volume = case * d_size * h_size * w_size * channels
    hidden, above, y = hidden + volume, above + volume, y + volume
    projections += case * windows * channels * head_dim
    matrix = of_windows(
        projections, table, block, blocks, channels * head_dim, head_dim, shifts, cols, exists, head_dim
    )
    matrix = (share / shifts * matrix).to(hidden.dtype.element_ty)
    for part in range(0, d_block * h_block * w_block, VOXELS):
        voxels, inside = places(
            part + tl.arange(0, VOXELS), block, d_size, h_size, w_size, d_start, h_start, w_start,
            d_turn, h_turn, w_turn, h_count, w_count, d_block, h_block, w_block,
        )  # fmt: skip
        both = inside[:, None] & exists[None, :]
        offsets = voxels[:, None] * channels + cols[None, :]
        result = tl.dot(tl.load(hidden + offsets, both, 0.0), matrix, input_precision=precision)
        if adds:
            result += tl.load(above + offsets, both, 0.0).to(tl.float32)
        tl.store(y + offsets, result.to(y.dtype.element_ty), both)


@triton.jit
def _gradient_of_apply(
    hidden,
    grad,
    grad_hidden,
    projections,
    table,
    grad_projections,
    share,
    channels,
    head_dim,
    group,
    blocks,
    windows,
    shifts,
    d_size, h_size, w_size, d_start, h_start, w_start, d_turn, h_turn, w_turn, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    precision: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """grad_projections: (cases, blocks, heads, d, d), of the average over shifts."""
    block, case = tl.program_id(0), tl.program_id(2).to(tl.int64)
    cols = tl.program_id(1) * group + tl.arange(0, CHANNELS)
    exists = (tl.arange(0, CHANNELS) < group) & (cols < channels)
    volume = case * d_size * h_size * w_size * channels
    hidden, grad, grad_hidden = hidden + volume, grad + volume, grad_hidden + volume
    projections += case * windows * channels * head_dim
    matrix = of_windows(
        projections, table, block, blocks, channels * head_dim, head_dim, shifts, cols, exists, head_dim
    )
    matrix = (share / shifts * matrix).to(hidden.dtype.element_ty)
    of_matrix = tl.zeros([CHANNELS, CHANNELS], tl.float32)
    for part in range(0, d_block * h_block * w_block, VOXELS):
        voxels, inside = places(
            part + tl.arange(0, VOXELS), block, d_size, h_size, w_size, d_start, h_start, w_start,
            d_turn, h_turn, w_turn, h_count, w_count, d_block, h_block, w_block,
        )  # fmt: skip
        both = inside[:, None] & exists[None, :]
        offsets = voxels[:, None] * channels + cols[None, :]
        given, over = tl.load(hidden + offsets, both, 0.0), tl.load(grad + offsets, both, 0.0)
        of_matrix = tl.dot(tl.trans(given), over, of_matrix, input_precision=precision)
        through = tl.dot(over, tl.trans(matrix), input_precision=precision)
        tl.store(grad_hidden + offsets, through.to(grad_hidden.dtype.element_ty), both)
    place = grad_projections + (case * blocks + block) * channels * head_dim
    at, same = per_head(place, head_dim, cols, exists, head_dim)
    tl.store(at, share * of_matrix, same)


@triton.jit
def _gradient_of_sums(
    hidden,
    grad_sums,
    table,
    grad_hidden,
    channels,
    head_dim,
    group,
    blocks,
    windows,
    shifts,
    d_size, h_size, w_size, d_start, h_start, w_start, d_turn, h_turn, w_turn, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    precision: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Adds to grad_hidden; grad_sums: (cases, windows, heads, d, d + 1)."""
    block, case = tl.program_id(0), tl.program_id(2).to(tl.int64)
    cols = tl.program_id(1) * group + tl.arange(0, CHANNELS)
    exists = (tl.arange(0, CHANNELS) < group) & (cols < channels)
    volume = case * d_size * h_size * w_size * channels
    hidden, grad_hidden = hidden + volume, grad_hidden + volume
    grad_sums += case * windows * channels * (head_dim + 1)
    stride = channels * (head_dim + 1)
    slopes = of_windows(grad_sums, table, block, blocks, stride, head_dim + 1, shifts, cols, exists, head_dim)
    slopes += tl.trans(slopes)
    total = last_of_windows(grad_sums, table, block, blocks, stride, head_dim + 1, shifts, cols, exists, head_dim)
    for part in range(0, d_block * h_block * w_block, VOXELS):
        voxels, inside = places(
            part + tl.arange(0, VOXELS), block, d_size, h_size, w_size, d_start, h_start, w_start,
            d_turn, h_turn, w_turn, h_count, w_count, d_block, h_block, w_block,
        )  # fmt: skip
        both = inside[:, None] & exists[None, :]
        offsets = voxels[:, None] * channels + cols[None, :]
        given = tl.load(hidden + offsets, both, 0.0).to(tl.float32)
        # Gradients of Gram matrices have the range of float32; what they give of H has that of other gradients.
        result = tl.load(grad_hidden + offsets, both, 0.0).to(tl.float32) + total[None, :]
        result += tl.dot(given, slopes, input_precision=precision)
        tl.store(grad_hidden + offsets, result.to(grad_hidden.dtype.element_ty), both)


def mix_families(x: Tensor, families: Sequence[Family], head_dim: int, num_iters: int) -> Tensor:
    """As ``gram.mix_families``; x: (B, *spatial, C), nonnegative, in float32 or half precision."""
    result = None
    for family, share in zip(families, weights(families), strict=True):
        where = geometry(x.shape[1:-1], family).packed()
        result, *_ = _mix(x, result, where, head_dim, num_iters, share)
    return result


def _like_mix(x, above, where, head_dim, num_iters, share) -> tuple[Tensor, Tensor, Tensor]:
    heads = x.shape[-1] // head_dim
    windows = (x.shape[0], unpacked(tuple(where)).windows, heads, head_dim)
    sums = x.new_empty((*windows, head_dim + 1), dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.contiguous_format), sums, sums.new_empty((*windows, head_dim))


@operator("mix", _like_mix)
def _mix(
    x: Tensor, above: Tensor | None, where: Sequence[int], head_dim: int, num_iters: int, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """above + share · H P of one family, and the sums and projections of its windows; where: a packed ``Geometry``."""
    x = x.contiguous()
    place = unpacked(tuple(where))
    held = membership(place, x.device)
    channels = x.shape[-1]
    grid, group, tile = _launch(x, place, head_dim)
    sums = x.new_empty((len(x), place.blocks, channels // head_dim, head_dim, head_dim + 1), dtype=torch.float32)
    _sum_blocks[grid](x, sums, channels, head_dim, group, place.blocks, *place.for_places(), *tile)
    window_sums, projections = project_windows(sums, held, num_iters)
    y = torch.empty_like(x)
    _apply[grid](
        x, x if above is None else above.contiguous(), y, projections, held.windows, share, channels, head_dim, group,
        place.blocks, projections.shape[1], held.shifts, *place.for_places(), above is not None, *tile,
    )  # fmt: skip
    return y, window_sums, projections


def _like_mix_backward(grad, x, *_: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@operator("mix_backward", _like_mix_backward)
def _mix_backward(
    grad: Tensor,
    x: Tensor,
    window_sums: Tensor,
    projections: Tensor,
    where: Sequence[int],
    head_dim: int,
    num_iters: int,
    share: float,
) -> Tensor:
    """Gradient of x."""
    x, grad = x.contiguous(), grad.contiguous()
    place = unpacked(tuple(where))
    held = membership(place, x.device)
    grid, group, tile = _launch(x, place, head_dim)
    grad_x = torch.empty_like(x)
    grad_projections = x.new_empty((len(x), place.blocks, *projections.shape[2:]), dtype=torch.float32)
    sizes = (x.shape[-1], head_dim, group, place.blocks, projections.shape[1], held.shifts, *place.for_places(), *tile)
    _gradient_of_apply[grid](x, grad, grad_x, projections, held.windows, grad_projections, share, *sizes)
    grad_sums = project_windows_backward(grad_projections, window_sums, held, num_iters)
    _gradient_of_sums[grid](x, grad_sums, held.windows, grad_x, *sizes)
    return grad_x


def _launch(x: Tensor, place: Geometry, head_dim: int) -> tuple[tuple[int, ...], int, tuple[str, int, int]]:
    """Grid, channels of a program, and precision and sizes of its tiles."""
    group = max(1, _GROUP // head_dim) * head_dim
    grid = (place.blocks, triton.cdiv(x.shape[-1], group), len(x))
    precision = "ieee" if x.dtype == torch.float32 else "tf32"
    return grid, group, (precision, min(_MOST_VOXELS, padded(place.block_voxels)), padded(group))


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    x, above, *ctx.settings = inputs
    ctx.has_above = above is not None
    ctx.save_for_backward(x, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    grad_x = _mix_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return grad_x, grad if ctx.has_above else None, None, None, None, None


differentiable(_mix, _backward, _keep)
