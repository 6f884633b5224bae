"""Device functions on the blocks of a family of shifts: their voxels in a volume, the matrices of their heads."""

from __future__ import annotations

import triton
from triton import language as tl


@triton.jit
def block_voxels(
    index,
    block,
    d_size, h_size, w_size, d_start, h_start, w_start, d_wrap, h_wrap, w_wrap, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
):  # fmt: skip
    """Voxels of a case as flat indices, for voxels ``index`` of a block, and the mask of those in the volume.

    Along each axis the blocks begin at ``start``; where ``wrap`` is not 0, voxels beyond it continue at 0.
    """
    d = block // (h_count * w_count) * d_block + index // (h_block * w_block) + d_start
    h = block // w_count % h_count * h_block + index // w_block % h_block + h_start
    w = block % w_count * w_block + index % w_block + w_start
    d = tl.where((d_wrap > 0) & (d >= d_wrap), d - d_wrap, d)
    h = tl.where((h_wrap > 0) & (h >= h_wrap), h - h_wrap, h)
    w = tl.where((w_wrap > 0) & (w >= w_wrap), w - w_wrap, w)
    in_volume = (d >= 0) & (d < d_size) & (h >= 0) & (h < h_size) & (w >= 0) & (w < w_size)
    return (d * h_size + h) * w_size + w, in_volume & (index < d_block * h_block * w_block)


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
def sum_over_windows(
    ptr, windows_ptr, block, num_blocks, window_stride, row_stride, num_shifts, channels, channel_mask, head_dim
):
    """Sum of the matrices of all windows that contain a block, as a (C, C) matrix with the heads on its diagonal.

    ptr: (windows, heads, d, row_stride), of the case; windows_ptr: (shifts, blocks), the window of each block.
    """
    pointers, mask = head_matrices(ptr, row_stride, channels, channel_mask, head_dim)
    total = tl.zeros([channels.shape[0], channels.shape[0]], tl.float32)
    for shift in range(num_shifts):
        window = tl.load(windows_ptr + shift * num_blocks + block)
        total += tl.load(pointers + window * window_stride, mask, 0.0)
    return total


@triton.jit
def sum_last_column_over_windows(
    ptr, windows_ptr, block, num_blocks, window_stride, row_stride, num_shifts, channels, channel_mask, head_dim
):
    """The same for the column after the matrices, (C,)."""
    total = tl.zeros([channels.shape[0]], tl.float32)
    for shift in range(num_shifts):
        window = tl.load(windows_ptr + shift * num_blocks + block)
        total += tl.load(ptr + window * window_stride + channels * row_stride + head_dim, channel_mask, 0.0)
    return total
