"""Device functions on the blocks of a family of shifts: their voxels in a volume, the matrices of their heads."""

from __future__ import annotations

import triton
from triton import language as tl


@triton.jit
def block_tile(
    first, block, channels, channel_mask, num_channels,
    d_size, h_size, w_size, d_start, h_start, w_start, d_wrap, h_wrap, w_wrap, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr, BLOCK_VOXELS: tl.constexpr,
):  # fmt: skip
    """Offsets in a case of a tile (voxels, C) that begins at voxel ``first`` of a block, its mask, and that of voxels.

    Along each axis the blocks begin at ``start``; where ``wrap`` is not 0, voxels beyond it continue at 0.
    """
    index = first + tl.arange(0, BLOCK_VOXELS)
    d = block // (h_count * w_count) * d_block + index // (h_block * w_block) + d_start
    h = block // w_count % h_count * h_block + index // w_block % h_block + h_start
    w = block % w_count * w_block + index % w_block + w_start
    d = tl.where((d_wrap > 0) & (d >= d_wrap), d - d_wrap, d)
    h = tl.where((h_wrap > 0) & (h >= h_wrap), h - h_wrap, h)
    w = tl.where((w_wrap > 0) & (w >= w_wrap), w - w_wrap, w)
    inside = (d >= 0) & (d < d_size) & (h >= 0) & (h < h_size) & (w >= 0) & (w < w_size)
    in_volume = inside & (index < d_block * h_block * w_block)
    voxels = (d * h_size + h) * w_size + w
    return voxels[:, None] * num_channels + channels[None, :], in_volume[:, None] & channel_mask[None, :], in_volume


@triton.jit
def head_matrices(ptr, row_stride, channels, channel_mask, head_dim):
    """Pointers to the heads' (d, d) matrices at ``ptr`` as the diagonal blocks of a (C, C) matrix, and their mask.

    ptr: (heads, d, row_stride), the first d columns of each row; channels: (C,), indices.
    """
    mask = (channels // head_dim)[:, None] == (channels // head_dim)[None, :]
    rows = (channels // head_dim) * head_dim * row_stride + channels % head_dim * row_stride
    pointers = ptr + rows[:, None] + (channels % head_dim)[None, :]
    return pointers, mask & channel_mask[:, None] & channel_mask[None, :]


@triton.jit
def average_projection(
    ptr, windows_ptr, case, block, factor, num_blocks, num_windows, num_shifts, num_channels, channels, channel_mask,
    head_dim, dtype: tl.constexpr,
):  # fmt: skip
    """``factor`` times the average over shifts of P of the windows with a block, (C, C), the heads on its diagonal.

    ptr: (cases, windows, heads, d, d); windows_ptr: (shifts, blocks), the window of each block.
    """
    stride = num_channels * head_dim
    pointers, mask = head_matrices(
        ptr + case.to(tl.int64) * num_windows * stride, head_dim, channels, channel_mask, head_dim
    )
    total = tl.zeros([channels.shape[0], channels.shape[0]], tl.float32)
    for shift in range(num_shifts):
        window = tl.load(windows_ptr + shift * num_blocks + block)
        total += tl.load(pointers + window * stride, mask, 0.0)
    return (factor / num_shifts * total).to(dtype)


@triton.jit
def load_sums_gradient(
    ptr, windows_ptr, case, block, num_blocks, num_windows, num_shifts, num_channels, channels, channel_mask, head_dim
):
    """S + Sᵀ (C, C) and s (C,): gradients of a block's Gram matrix and row sum, over all windows that contain it.

    ptr: (cases, windows, heads, d, d + 1); windows_ptr: (shifts, blocks), the window of each block.
    """
    stride = num_channels * (head_dim + 1)
    ptr += case.to(tl.int64) * num_windows * stride
    pointers, mask = head_matrices(ptr, head_dim + 1, channels, channel_mask, head_dim)
    gram = tl.zeros([channels.shape[0], channels.shape[0]], tl.float32)
    row_sum = tl.zeros([channels.shape[0]], tl.float32)
    for shift in range(num_shifts):
        window = tl.load(windows_ptr + shift * num_blocks + block) * stride
        gram += tl.load(pointers + window, mask, 0.0)
        row_sum += tl.load(ptr + window + channels * (head_dim + 1) + head_dim, channel_mask, 0.0)
    return gram + tl.trans(gram), row_sum
