"""Rank-1 NMF of all windows of a hidden layer in memory: for wide layers; see ``mixer.triton`` for narrow ones.

``gram.mix_families`` in three calls: sums of blocks, projections of windows, product. A program has some heads of a
block. The backward pass takes two passes over the volume: with H the hidden layer, G the gradient of H P, and S and s
those of the sums, dL/dP = Hᵀ G and dL/dH = G Pᵀ + H (S + Sᵀ) + 1 sᵀ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from triton import language as tl

from factorizer_nnunet.network.ops.launch import like_first, operator, padded, wrap_triton
from factorizer_nnunet.network.ops.mixer.block_geometry import Geometry, geometry, membership, unpacked
from factorizer_nnunet.network.ops.mixer.gram import shift_shares
from factorizer_nnunet.network.ops.mixer.triton_blocks import (
    average_projection,
    block_tile,
    head_matrices,
    load_sums_gradient,
)
from factorizer_nnunet.network.ops.mixer.triton_windows import project_windows, project_windows_backward
from factorizer_nnunet.network.windows import Family

_GROUP_CHANNELS = 32  # of the heads that a program has
_MAX_BLOCK_VOXELS = 64  # of a tile

# In all kernels, the grid is (blocks, groups of heads, cases), hidden, grad and results are (cases, voxels, C), and
# windows is (shifts, blocks), the window that contains each block.


@triton.jit
def _program(num_channels, group_channels, BLOCK_C: tl.constexpr):
    """Block and case of a program, its channels, and their mask."""
    i = tl.arange(0, BLOCK_C)
    channels = tl.program_id(1) * group_channels + i
    mask = (i < group_channels) & (channels < num_channels)
    return tl.program_id(0), tl.program_id(2).to(tl.int64), channels, mask


@triton.jit
def _sum_blocks(
    hidden_ptr,
    sums_ptr,
    num_channels,
    head_dim,
    group_channels,
    num_blocks,
    d_size, h_size, w_size, d_start, h_start, w_start, d_wrap, h_wrap, w_wrap, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    precision: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # sums: (cases, blocks, heads, d, d + 1), Gram matrix and row sum of each block
    block, case, channels, mask = _program(num_channels, group_channels, BLOCK_C)
    hidden_ptr += case * d_size * h_size * w_size * num_channels
    gram = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    row_sum = tl.zeros([BLOCK_C], tl.float32)
    for start in range(0, d_block * h_block * w_block, BLOCK_VOXELS):
        offsets, hidden_mask, in_volume = block_tile(
            start, block, channels, mask, num_channels, d_size, h_size, w_size, d_start, h_start, w_start,
            d_wrap, h_wrap, w_wrap, h_count, w_count, d_block, h_block, w_block, BLOCK_VOXELS,
        )  # fmt: skip
        hidden = tl.load(hidden_ptr + offsets, hidden_mask, 0.0)
        gram = tl.dot(tl.trans(hidden), hidden, gram, input_precision=precision)
        row_sum += tl.sum(hidden.to(tl.float32), 0)
    sums_ptr += (case * num_blocks + block) * num_channels * (head_dim + 1)
    pointers, gram_mask = head_matrices(sums_ptr, head_dim + 1, channels, mask, head_dim)
    tl.store(pointers, gram, gram_mask)
    tl.store(sums_ptr + channels * (head_dim + 1) + head_dim, row_sum, mask)


@triton.jit
def _apply_projections(
    hidden_ptr,
    residual_ptr,
    y_ptr,
    projections_ptr,
    windows_ptr,
    share,
    num_channels,
    head_dim,
    group_channels,
    num_blocks,
    num_windows,
    num_shifts,
    d_size, h_size, w_size, d_start, h_start, w_start, d_wrap, h_wrap, w_wrap, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    has_residual: tl.constexpr,
    precision: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # y = share · H P, plus the residual with has_residual; projections: (cases, windows, heads, d, d)
    block, case, channels, mask = _program(num_channels, group_channels, BLOCK_C)
    volume = case * d_size * h_size * w_size * num_channels
    hidden_ptr, residual_ptr, y_ptr = hidden_ptr + volume, residual_ptr + volume, y_ptr + volume
    projection = average_projection(
        projections_ptr, windows_ptr, case, block, share, num_blocks, num_windows, num_shifts, num_channels, channels,
        mask, head_dim, hidden_ptr.dtype.element_ty,
    )  # fmt: skip
    for start in range(0, d_block * h_block * w_block, BLOCK_VOXELS):
        offsets, hidden_mask, in_volume = block_tile(
            start, block, channels, mask, num_channels, d_size, h_size, w_size, d_start, h_start, w_start,
            d_wrap, h_wrap, w_wrap, h_count, w_count, d_block, h_block, w_block, BLOCK_VOXELS,
        )  # fmt: skip
        y = tl.dot(tl.load(hidden_ptr + offsets, hidden_mask, 0.0), projection, input_precision=precision)
        if has_residual:
            y += tl.load(residual_ptr + offsets, hidden_mask, 0.0).to(tl.float32)
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), hidden_mask)


@triton.jit
def _projection_gradient(
    hidden_ptr,
    grad_ptr,
    grad_hidden_ptr,
    projections_ptr,
    windows_ptr,
    grad_projections_ptr,
    share,
    num_channels,
    head_dim,
    group_channels,
    num_blocks,
    num_windows,
    num_shifts,
    d_size, h_size, w_size, d_start, h_start, w_start, d_wrap, h_wrap, w_wrap, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    precision: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # Backward pass of _apply_projections. projections: (cases, windows, heads, d, d);
    # grad_projections: (cases, blocks, heads, d, d), of the average over shifts
    block, case, channels, mask = _program(num_channels, group_channels, BLOCK_C)
    volume = case * d_size * h_size * w_size * num_channels
    hidden_ptr, grad_ptr, grad_hidden_ptr = hidden_ptr + volume, grad_ptr + volume, grad_hidden_ptr + volume
    projection = average_projection(
        projections_ptr, windows_ptr, case, block, share, num_blocks, num_windows, num_shifts, num_channels, channels,
        mask, head_dim, hidden_ptr.dtype.element_ty,
    )  # fmt: skip
    grad_projection = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    for start in range(0, d_block * h_block * w_block, BLOCK_VOXELS):
        offsets, hidden_mask, in_volume = block_tile(
            start, block, channels, mask, num_channels, d_size, h_size, w_size, d_start, h_start, w_start,
            d_wrap, h_wrap, w_wrap, h_count, w_count, d_block, h_block, w_block, BLOCK_VOXELS,
        )  # fmt: skip
        hidden = tl.load(hidden_ptr + offsets, hidden_mask, 0.0)
        grad = tl.load(grad_ptr + offsets, hidden_mask, 0.0)
        grad_projection = tl.dot(tl.trans(hidden), grad, grad_projection, input_precision=precision)
        grad_hidden = tl.dot(grad, tl.trans(projection), input_precision=precision)
        tl.store(grad_hidden_ptr + offsets, grad_hidden.to(grad_hidden_ptr.dtype.element_ty), hidden_mask)
    grad_projections_ptr += (case * num_blocks + block) * num_channels * head_dim
    pointers, matrix_mask = head_matrices(grad_projections_ptr, head_dim, channels, mask, head_dim)
    tl.store(pointers, share * grad_projection, matrix_mask)


@triton.jit
def _sums_gradient(
    hidden_ptr,
    grad_sums_ptr,
    windows_ptr,
    grad_hidden_ptr,
    num_channels,
    head_dim,
    group_channels,
    num_blocks,
    num_windows,
    num_shifts,
    d_size, h_size, w_size, d_start, h_start, w_start, d_wrap, h_wrap, w_wrap, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    precision: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # Backward pass of _sum_blocks; adds to grad_hidden. grad_sums: (cases, windows, heads, d, d + 1)
    block, case, channels, mask = _program(num_channels, group_channels, BLOCK_C)
    volume = case * d_size * h_size * w_size * num_channels
    hidden_ptr, grad_hidden_ptr = hidden_ptr + volume, grad_hidden_ptr + volume
    grad_gram, grad_row_sum = load_sums_gradient(
        grad_sums_ptr, windows_ptr, case, block, num_blocks, num_windows, num_shifts, num_channels, channels, mask,
        head_dim,
    )  # fmt: skip
    for start in range(0, d_block * h_block * w_block, BLOCK_VOXELS):
        offsets, hidden_mask, in_volume = block_tile(
            start, block, channels, mask, num_channels, d_size, h_size, w_size, d_start, h_start, w_start,
            d_wrap, h_wrap, w_wrap, h_count, w_count, d_block, h_block, w_block, BLOCK_VOXELS,
        )  # fmt: skip
        hidden = tl.load(hidden_ptr + offsets, hidden_mask, 0.0).to(tl.float32)
        # Gradients of Gram matrices have the range of float32; those of H have the range of other gradients.
        grad_hidden = tl.load(grad_hidden_ptr + offsets, hidden_mask, 0.0).to(tl.float32) + grad_row_sum[None, :]
        grad_hidden += tl.dot(hidden, grad_gram, input_precision=precision)
        tl.store(grad_hidden_ptr + offsets, grad_hidden.to(grad_hidden_ptr.dtype.element_ty), hidden_mask)


def mix_families(x: Tensor, families: Sequence[Family], head_dim: int, num_iters: int) -> Tensor:
    """As ``gram.mix_families``; x: (B, *spatial, C), nonnegative, in float32 or half precision."""
    result: Tensor | None = None
    for family, share in zip(families, shift_shares(families), strict=True):
        packed = geometry(x.shape[1:-1], family).packed()
        result, *_ = _mix_family(x, result, packed, head_dim, num_iters, share)
    assert result is not None  # a grid has at least one family of shifts
    return result


def _fake_mix_family(
    x: Tensor, residual: Tensor | None, packed: Sequence[int], head_dim: int, num_iters: int, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    heads = x.shape[-1] // head_dim
    windows = (x.shape[0], unpacked(tuple(packed)).num_windows, heads, head_dim)
    sums = x.new_empty((*windows, head_dim + 1), dtype=torch.float32)
    return like_first(x), sums, sums.new_empty((*windows, head_dim))


@operator("mix_family", _fake_mix_family)
def _mix_family(
    x: Tensor, residual: Tensor | None, packed: Sequence[int], head_dim: int, num_iters: int, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """residual + share · H P of one family, and the sums and projections of its windows; packed: a ``Geometry``."""
    x = x.contiguous()
    blocks = unpacked(tuple(packed))
    members = membership(blocks, x.device)
    channels = x.shape[-1]
    grid, group, tile = _launch_settings(x, blocks, head_dim)
    sums = x.new_empty((len(x), blocks.num_blocks, channels // head_dim, head_dim, head_dim + 1), dtype=torch.float32)
    wrap_triton(_sum_blocks)[grid](
        x, sums, channels, head_dim, group, blocks.num_blocks, *blocks.kernel_arguments(), *tile
    )
    window_sums, projections = project_windows(sums, members, num_iters)
    y = torch.empty_like(x)
    wrap_triton(_apply_projections)[grid](
        x, x if residual is None else residual.contiguous(), y, projections, members.windows, share, channels, head_dim,
        group, blocks.num_blocks, projections.shape[1], members.num_shifts, *blocks.kernel_arguments(),
        residual is not None, *tile,
    )  # fmt: skip
    return y, window_sums, projections


@operator("mix_family_backward", like_first)
def _mix_family_backward(
    grad: Tensor,
    x: Tensor,
    window_sums: Tensor,
    projections: Tensor,
    packed: Sequence[int],
    head_dim: int,
    num_iters: int,
    share: float,
) -> Tensor:
    """Gradient of x."""
    x, grad = x.contiguous(), grad.contiguous()
    blocks = unpacked(tuple(packed))
    members = membership(blocks, x.device)
    grid, group, tile = _launch_settings(x, blocks, head_dim)
    grad_x = torch.empty_like(x)
    grad_projections = x.new_empty((len(x), blocks.num_blocks, *projections.shape[2:]), dtype=torch.float32)
    sizes = (
        x.shape[-1], head_dim, group, blocks.num_blocks, projections.shape[1], members.num_shifts,
        *blocks.kernel_arguments(), *tile,
    )  # fmt: skip
    wrap_triton(_projection_gradient)[grid](
        x, grad, grad_x, projections, members.windows, grad_projections, share, *sizes
    )
    grad_sums = project_windows_backward(grad_projections, window_sums, members, num_iters)
    wrap_triton(_sums_gradient)[grid](x, grad_sums, members.windows, grad_x, *sizes)
    return grad_x


def _launch_settings(x: Tensor, blocks: Geometry, head_dim: int) -> tuple[tuple[int, ...], int, tuple[str, int, int]]:
    """Grid, channels of a program, and precision and sizes of its tiles."""
    group = max(1, _GROUP_CHANNELS // head_dim) * head_dim
    grid = (blocks.num_blocks, triton.cdiv(x.shape[-1], group), len(x))
    precision = "ieee" if x.dtype == torch.float32 else "tf32"
    return grid, group, (precision, min(_MAX_BLOCK_VOXELS, padded(blocks.block_voxels)), padded(group))


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    x, residual, *settings = inputs
    ctx.settings = tuple(settings)
    ctx.has_residual = residual is not None
    ctx.save_for_backward(x, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    grad_x = _mix_family_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return grad_x, grad if ctx.has_residual else None, None, None, None, None


_mix_family.differentiable(_backward, _setup_context)
