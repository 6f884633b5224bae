"""The four kernels of ``mixer.triton``, two forward and two backward; each computes H of a tile from x.

In all of them x, grad and results are (cases, voxels, C), scale and shift (1 or cases, C), weights (C, C), and
``windows`` (shifts, blocks) is the window that contains each block.
"""

from __future__ import annotations

import triton
from triton import language as tl

from factorizer_nnunet.network.ops.mixer.triton_blocks import (
    average_projection,
    block_tile,
    head_matrices,
    load_sums_gradient,
)
from factorizer_nnunet.network.ops.norm.triton_tiles import apply_norm, load_norm, norm_gradient


@triton.jit
def _load_weight(ptr, channels, mask, num_channels, dtype: tl.constexpr):
    """A (C, C) matrix in ``dtype``."""
    offsets = channels[:, None] * num_channels + channels[None, :]
    return tl.load(ptr + offsets, mask[:, None] & mask[None, :], 0.0).to(dtype)


@triton.jit
def _hidden(x, in_volume, mask, scale, shift, in_weight, num_channels, eps, is_layer_norm: tl.constexpr):
    """H of a tile, 0 outside the volume, and what its backward pass needs; in_weight: (C, C), of ``in_proj``."""
    normed, standardized, rstd = apply_norm(x, scale, shift, mask, num_channels, eps, is_layer_norm)
    hidden = tl.maximum(tl.dot(normed, tl.trans(in_weight)), 0.0)
    return tl.where(in_volume[:, None], hidden, 0.0).to(x.dtype), normed, standardized, rstd


@triton.jit
def sum_blocks(
    x_ptr,
    sums_ptr,
    scale_ptr,
    shift_ptr,
    in_weight_ptr,
    num_channels,
    head_dim,
    num_blocks,
    eps,
    d_size, h_size, w_size, d_start, h_start, w_start, d_wrap, h_wrap, w_wrap, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    is_layer_norm: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # sums: (cases, blocks, heads, d, d + 1), Gram matrix and row sum of H of each block; grid: (blocks, cases)
    block, case = tl.program_id(0), tl.program_id(1)
    channels = tl.arange(0, BLOCK_C)
    mask = channels < num_channels
    x_ptr += case.to(tl.int64) * d_size * h_size * w_size * num_channels
    scale, shift = load_norm(scale_ptr, shift_ptr, case, channels, mask, num_channels, is_layer_norm)
    in_weight = _load_weight(in_weight_ptr, channels, mask, num_channels, x_ptr.dtype.element_ty)
    gram = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    row_sum = tl.zeros([BLOCK_C], tl.float32)
    for start in range(0, d_block * h_block * w_block, BLOCK_VOXELS):
        offsets, x_mask, in_volume = block_tile(
            start, block, channels, mask, num_channels, d_size, h_size, w_size, d_start, h_start, w_start,
            d_wrap, h_wrap, w_wrap, h_count, w_count, d_block, h_block, w_block, BLOCK_VOXELS,
        )  # fmt: skip
        x = tl.load(x_ptr + offsets, x_mask, 0.0)
        hidden, normed, standardized, rstd = _hidden(
            x, in_volume, mask, scale, shift, in_weight, num_channels, eps, is_layer_norm
        )
        gram = tl.dot(tl.trans(hidden), hidden, gram)
        row_sum += tl.sum(hidden.to(tl.float32), 0)
    sums_ptr += (case * num_blocks + block).to(tl.int64) * num_channels * (head_dim + 1)
    pointers, gram_mask = head_matrices(sums_ptr, head_dim + 1, channels, mask, head_dim)
    tl.store(pointers, gram, gram_mask)
    tl.store(sums_ptr + channels * (head_dim + 1) + head_dim, row_sum, mask)


@triton.jit
def apply_projections(
    x_ptr,
    residual_ptr,
    y_ptr,
    projections_ptr,
    windows_ptr,
    scale_ptr,
    shift_ptr,
    in_weight_ptr,
    out_weight_ptr,
    bias_ptr,
    share,
    num_channels,
    head_dim,
    num_blocks,
    num_windows,
    num_shifts,
    eps,
    d_size, h_size, w_size, d_start, h_start, w_start, d_wrap, h_wrap, w_wrap, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    is_layer_norm: tl.constexpr,
    has_bias: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # y = residual + share · H P Wᵀ + b; projections: (cases, windows, heads, d, d); bias: (C,); grid: (blocks, cases)
    block, case = tl.program_id(0), tl.program_id(1)
    channels = tl.arange(0, BLOCK_C)
    mask = channels < num_channels
    volume = case.to(tl.int64) * d_size * h_size * w_size * num_channels
    x_ptr, residual_ptr, y_ptr = x_ptr + volume, residual_ptr + volume, y_ptr + volume
    scale, shift = load_norm(scale_ptr, shift_ptr, case, channels, mask, num_channels, is_layer_norm)
    in_weight = _load_weight(in_weight_ptr, channels, mask, num_channels, x_ptr.dtype.element_ty)
    out_weight = _load_weight(out_weight_ptr, channels, mask, num_channels, x_ptr.dtype.element_ty)
    projection = average_projection(
        projections_ptr, windows_ptr, case, block, 1.0, num_blocks, num_windows, num_shifts, num_channels, channels,
        mask, head_dim, in_weight.dtype,
    )  # fmt: skip
    bias = tl.zeros([BLOCK_C], tl.float32)
    if has_bias:
        bias += tl.load(bias_ptr + channels, mask, 0.0)
    for start in range(0, d_block * h_block * w_block, BLOCK_VOXELS):
        offsets, x_mask, in_volume = block_tile(
            start, block, channels, mask, num_channels, d_size, h_size, w_size, d_start, h_start, w_start,
            d_wrap, h_wrap, w_wrap, h_count, w_count, d_block, h_block, w_block, BLOCK_VOXELS,
        )  # fmt: skip
        x = tl.load(x_ptr + offsets, x_mask, 0.0)
        hidden, normed, standardized, rstd = _hidden(
            x, in_volume, mask, scale, shift, in_weight, num_channels, eps, is_layer_norm
        )
        mixed = tl.dot(hidden, projection).to(x.dtype)
        y = tl.load(residual_ptr + offsets, x_mask, 0.0).to(tl.float32) + bias[None, :]
        y += share * tl.dot(mixed, tl.trans(out_weight))
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), x_mask)


# Longer than 60 lines: a kernel is one program, and its tiles stay in registers only within it.
@triton.jit
def projection_gradient(
    x_ptr,
    grad_ptr,
    grad_x_ptr,
    projections_ptr,
    windows_ptr,
    grad_projections_ptr,
    partial_ptr,
    scale_ptr,
    shift_ptr,
    in_weight_ptr,
    out_weight_ptr,
    share,
    num_channels,
    head_dim,
    num_blocks,
    num_windows,
    num_shifts,
    eps,
    d_size, h_size, w_size, d_start, h_start, w_start, d_wrap, h_wrap, w_wrap, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    is_layer_norm: tl.constexpr,
    is_residual: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # Backward pass of apply_projections. projections: (cases, windows, heads, d, d);
    # grad_projections: (cases, blocks, heads, d, d), of the average over shifts;
    # partial: (cases, programs, 3 C + 2 C²), gradients of scale, shift, bias, in_weight and out_weight;
    # with is_residual, x is also the residual and receives grad itself; grid: (programs, cases)
    case = tl.program_id(1)
    channels = tl.arange(0, BLOCK_C)
    mask = channels < num_channels
    volume = case.to(tl.int64) * d_size * h_size * w_size * num_channels
    x_ptr, grad_ptr, grad_x_ptr = x_ptr + volume, grad_ptr + volume, grad_x_ptr + volume
    scale, shift = load_norm(scale_ptr, shift_ptr, case, channels, mask, num_channels, is_layer_norm)
    in_weight = _load_weight(in_weight_ptr, channels, mask, num_channels, x_ptr.dtype.element_ty)
    out_weight = _load_weight(out_weight_ptr, channels, mask, num_channels, x_ptr.dtype.element_ty)
    grad_scale = tl.zeros([BLOCK_C], tl.float32)
    grad_shift = tl.zeros([BLOCK_C], tl.float32)
    grad_bias = tl.zeros([BLOCK_C], tl.float32)
    grad_in_weight = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    grad_out_weight = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    grad_projections_ptr += case.to(tl.int64) * num_blocks * num_channels * head_dim
    for block in range(tl.program_id(0), num_blocks, tl.num_programs(0)):
        projection = average_projection(
            projections_ptr, windows_ptr, case, block, 1.0, num_blocks, num_windows, num_shifts, num_channels, channels,
            mask, head_dim, in_weight.dtype,
        )  # fmt: skip
        grad_projection = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
        for start in range(0, d_block * h_block * w_block, BLOCK_VOXELS):
            offsets, x_mask, in_volume = block_tile(
                start, block, channels, mask, num_channels, d_size, h_size, w_size, d_start, h_start, w_start,
                d_wrap, h_wrap, w_wrap, h_count, w_count, d_block, h_block, w_block, BLOCK_VOXELS,
            )  # fmt: skip
            x = tl.load(x_ptr + offsets, x_mask, 0.0)
            grad = tl.load(grad_ptr + offsets, x_mask, 0.0)
            hidden, normed, standardized, rstd = _hidden(
                x, in_volume, mask, scale, shift, in_weight, num_channels, eps, is_layer_norm
            )
            mixed = tl.dot(hidden, projection).to(x.dtype)
            grad_out_weight = tl.dot(tl.trans(grad), mixed, grad_out_weight)
            grad_bias += tl.sum(grad.to(tl.float32), 0)
            grad_mixed = (share * tl.dot(grad, out_weight)).to(x.dtype)
            grad_projection = tl.dot(tl.trans(hidden), grad_mixed, grad_projection)
            grad_hidden = tl.dot(grad_mixed, tl.trans(projection))
            grad_hidden = tl.where(hidden > 0, grad_hidden, 0.0).to(x.dtype)
            grad_in_weight = tl.dot(tl.trans(grad_hidden), normed, grad_in_weight)
            grad_normed = tl.dot(grad_hidden, in_weight)
            grad_scale += tl.sum(grad_normed * standardized, 0)
            grad_shift += tl.sum(grad_normed, 0)
            grad_x = norm_gradient(grad_normed, standardized, rstd, scale, num_channels, is_layer_norm)
            if is_residual:
                grad_x += grad.to(tl.float32)
            tl.store(grad_x_ptr + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), x_mask)
        pointers, matrix_mask = head_matrices(
            grad_projections_ptr + block * num_channels * head_dim, head_dim, channels, mask, head_dim
        )
        tl.store(pointers, grad_projection, matrix_mask)
    row_ptr = _partial_row(partial_ptr, case, num_channels)
    tl.store(row_ptr + channels, grad_scale, mask)
    tl.store(row_ptr + num_channels + channels, grad_shift, mask)
    tl.store(row_ptr + 2 * num_channels + channels, grad_bias, mask)
    weight_mask = mask[:, None] & mask[None, :]
    weight_offsets = channels[:, None] * num_channels + channels[None, :]
    tl.store(row_ptr + 3 * num_channels + weight_offsets, grad_in_weight, weight_mask)
    tl.store(row_ptr + (3 + num_channels) * num_channels + weight_offsets, share * grad_out_weight, weight_mask)


# Longer than 60 lines: a kernel is one program, and its tiles stay in registers only within it.
@triton.jit
def sums_gradient(
    x_ptr,
    grad_sums_ptr,
    windows_ptr,
    grad_x_ptr,
    partial_ptr,
    scale_ptr,
    shift_ptr,
    in_weight_ptr,
    num_channels,
    head_dim,
    num_blocks,
    num_windows,
    num_shifts,
    eps,
    d_size, h_size, w_size, d_start, h_start, w_start, d_wrap, h_wrap, w_wrap, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    is_layer_norm: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    # Backward pass of sum_blocks; adds to grad_x and partial, which projection_gradient has written.
    # grad_sums: (cases, windows, heads, d, d + 1); grid: (programs, cases), as for projection_gradient
    case = tl.program_id(1)
    channels = tl.arange(0, BLOCK_C)
    mask = channels < num_channels
    volume = case.to(tl.int64) * d_size * h_size * w_size * num_channels
    x_ptr, grad_x_ptr = x_ptr + volume, grad_x_ptr + volume
    scale, shift = load_norm(scale_ptr, shift_ptr, case, channels, mask, num_channels, is_layer_norm)
    in_weight = _load_weight(in_weight_ptr, channels, mask, num_channels, x_ptr.dtype.element_ty)
    row_ptr = _partial_row(partial_ptr, case, num_channels)
    weight_mask = mask[:, None] & mask[None, :]
    weight_offsets = channels[:, None] * num_channels + channels[None, :]
    grad_scale = tl.load(row_ptr + channels, mask, 0.0)
    grad_shift = tl.load(row_ptr + num_channels + channels, mask, 0.0)
    grad_in_weight = tl.load(row_ptr + 3 * num_channels + weight_offsets, weight_mask, 0.0)
    for block in range(tl.program_id(0), num_blocks, tl.num_programs(0)):
        grad_gram, grad_row_sum = load_sums_gradient(
            grad_sums_ptr, windows_ptr, case, block, num_blocks, num_windows, num_shifts, num_channels, channels, mask,
            head_dim,
        )  # fmt: skip
        for start in range(0, d_block * h_block * w_block, BLOCK_VOXELS):
            offsets, x_mask, in_volume = block_tile(
                start, block, channels, mask, num_channels, d_size, h_size, w_size, d_start, h_start, w_start,
                d_wrap, h_wrap, w_wrap, h_count, w_count, d_block, h_block, w_block, BLOCK_VOXELS,
            )  # fmt: skip
            x = tl.load(x_ptr + offsets, x_mask, 0.0)
            hidden, normed, standardized, rstd = _hidden(
                x, in_volume, mask, scale, shift, in_weight, num_channels, eps, is_layer_norm
            )
            # Gradients of Gram matrices have the range of float32; those of H have the range of other gradients.
            grad_hidden = tl.dot(hidden.to(tl.float32), grad_gram) + grad_row_sum[None, :]
            grad_hidden = tl.where(hidden > 0, grad_hidden, 0.0).to(x.dtype)
            grad_in_weight = tl.dot(tl.trans(grad_hidden), normed, grad_in_weight)
            grad_normed = tl.dot(grad_hidden, in_weight)
            grad_scale += tl.sum(grad_normed * standardized, 0)
            grad_shift += tl.sum(grad_normed, 0)
            grad_x = norm_gradient(grad_normed, standardized, rstd, scale, num_channels, is_layer_norm)
            grad_x += tl.load(grad_x_ptr + offsets, x_mask, 0.0).to(tl.float32)
            tl.store(grad_x_ptr + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), x_mask)
    tl.store(row_ptr + channels, grad_scale, mask)
    tl.store(row_ptr + num_channels + channels, grad_shift, mask)
    tl.store(row_ptr + 3 * num_channels + weight_offsets, grad_in_weight, weight_mask)


@triton.jit
def _partial_row(partial_ptr, case, num_channels):
    """The row of ``partial`` that belongs to this program."""
    row = (case * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
    return partial_ptr + row * num_channels * (3 + 2 * num_channels)
