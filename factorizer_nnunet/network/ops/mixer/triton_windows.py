"""From sums over blocks to the projection of every window of every shift, and back; see ``gram``.

A window's Gram matrix and row sum are the sums of those of its blocks. The matrices are so small that separate calls
would cost more than the arithmetic, so one kernel sums, iterates u ← r G u (r keeps the largest entry at 1) and
computes P = u uᵀ / (uᵀ u). The backward pass computes the iterates again, each from the start, which is as cheap: with
r constant and g the gradient of u,

    dL/dG += r g uᵀ (u before the step),   g ← r Gᵀ g.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton import language as tl

from factorizer_nnunet.network.ops.launch import wrap_triton
from factorizer_nnunet.network.ops.mixer.block_geometry import Membership

_MATRICES = 8  # of a program
_TINY = 1e-37  # just above the smallest normal float32, below which Triton flushes to zero


@triton.jit
def _matrices(num_windows, num_heads, size, BLOCK_MATRICES: tl.constexpr, BLOCK_D: tl.constexpr):
    """A program's matrices, their window and head; offsets of matrix and last column within (d, d + 1); masks."""
    matrices = tl.program_id(0) * BLOCK_MATRICES + tl.arange(0, BLOCK_MATRICES)
    i = tl.arange(0, BLOCK_D)
    mask = matrices < num_windows * num_heads
    gram_mask = mask[:, None, None] & (i < size)[None, :, None] & (i < size)[None, None, :]
    row_mask = mask[:, None] & (i < size)[None, :]
    gram_offsets = i[None, :, None] * (size + 1) + i[None, None, :]
    row_offsets = i[None, :] * (size + 1) + size
    return matrices, matrices // num_heads, matrices % num_heads, mask, gram_offsets, row_offsets, gram_mask, row_mask


@triton.jit
def _step(gram, u, tiny: tl.constexpr):
    """One iterate, and its divisor; gram: (n, d, d), u: (n, d)."""
    product = tl.sum(gram * u[:, None, :], 2)
    largest = tl.maximum(tl.max(product, 1), tiny)
    return product / largest[:, None], largest


@triton.jit
def _rescaled(gram, row_sum, tiny: tl.constexpr, BLOCK_D: tl.constexpr):
    """Gram matrices divided by their trace, the trace, the first iterate, and its divisor."""
    i = tl.arange(0, BLOCK_D)
    trace = tl.sum(tl.sum(tl.where(i[None, :, None] == i[None, None, :], gram, 0.0), 2), 1)
    trace = tl.maximum(trace, tiny)
    largest = tl.maximum(tl.max(row_sum, 1), tiny)
    return gram / trace[:, None, None], trace, row_sum / largest[:, None], largest


@triton.jit
def _project(
    block_sums_ptr,
    blocks_ptr,
    window_sums_ptr,
    projections_ptr,
    num_windows,
    num_members,
    num_blocks,
    num_heads,
    size,
    num_iters: tl.constexpr,
    tiny: tl.constexpr,
    BLOCK_MATRICES: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # block_sums: (cases, blocks, heads, d, d + 1); blocks: (windows, members), the blocks of each window;
    # window_sums: (cases, windows, heads, d, d + 1); projections: (cases, windows, heads, d, d);
    # grid: (groups of matrices, cases)
    case = tl.program_id(1).to(tl.int64)
    matrices, window, head, mask, gram_offsets, row_offsets, gram_mask, row_mask = _matrices(
        num_windows, num_heads, size, BLOCK_MATRICES, BLOCK_D
    )
    stride = size * (size + 1)
    block_sums_ptr += case * num_blocks * num_heads * stride
    gram = tl.zeros([BLOCK_MATRICES, BLOCK_D, BLOCK_D], tl.float32)
    row_sum = tl.zeros([BLOCK_MATRICES, BLOCK_D], tl.float32)
    for member in range(num_members):
        block = tl.load(blocks_ptr + window * num_members + member, mask, -1)
        start = (block * num_heads + head) * stride
        block_gram_mask, block_row_mask = gram_mask & (block >= 0)[:, None, None], row_mask & (block >= 0)[:, None]
        gram += tl.load(block_sums_ptr + start[:, None, None] + gram_offsets, block_gram_mask, 0.0)
        row_sum += tl.load(block_sums_ptr + start[:, None] + row_offsets, block_row_mask, 0.0)
    window_sums_ptr += case * num_windows * num_heads * stride
    tl.store(window_sums_ptr + matrices[:, None, None] * stride + gram_offsets, gram, gram_mask)
    tl.store(window_sums_ptr + matrices[:, None] * stride + row_offsets, row_sum, row_mask)
    gram, trace, u, divisor = _rescaled(gram, row_sum, tiny, BLOCK_D)
    for _iteration in range(num_iters - 1):
        u, divisor = _step(gram, u, tiny)
    norm = tl.maximum(tl.sum(u * u, 1), tiny)
    projection = u[:, :, None] * u[:, None, :] / norm[:, None, None]
    projections_ptr += case * num_windows * num_heads * size * size
    i = tl.arange(0, BLOCK_D)
    offsets = matrices[:, None, None] * (size * size) + i[None, :, None] * size + i[None, None, :]
    tl.store(projections_ptr + offsets, projection, gram_mask)


@triton.jit
def _sums_gradient(
    grad_ptr,
    blocks_ptr,
    window_sums_ptr,
    grad_sums_ptr,
    share,
    num_windows,
    num_members,
    num_blocks,
    num_heads,
    size,
    num_iters: tl.constexpr,
    tiny: tl.constexpr,
    BLOCK_MATRICES: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # grad: (cases, blocks, heads, d, d), of the average over shifts; blocks: (windows, members);
    # window_sums, grad_sums: (cases, windows, heads, d, d + 1); grid: (groups of matrices, cases)
    case = tl.program_id(1).to(tl.int64)
    matrices, window, head, mask, gram_offsets, row_offsets, gram_mask, row_mask = _matrices(
        num_windows, num_heads, size, BLOCK_MATRICES, BLOCK_D
    )
    stride = size * (size + 1)
    i = tl.arange(0, BLOCK_D)
    gram_offsets = matrices[:, None, None] * stride + i[None, :, None] * (size + 1) + i[None, None, :]
    row_offsets = matrices[:, None] * stride + i[None, :] * (size + 1) + size
    window_sums_ptr += case * num_windows * num_heads * stride
    gram = tl.load(window_sums_ptr + gram_offsets, gram_mask, 0.0)
    row_sum = tl.load(window_sums_ptr + row_offsets, row_mask, 0.0)
    gram, trace, first, first_divisor = _rescaled(gram, row_sum, tiny, BLOCK_D)
    u, divisor = first, first_divisor
    for _iteration in range(num_iters - 1):
        u, divisor = _step(gram, u, tiny)
    norm = tl.maximum(tl.sum(u * u, 1), tiny)
    grad_ptr += case * num_blocks * num_heads * size * size
    grad = tl.zeros([BLOCK_MATRICES, BLOCK_D, BLOCK_D], tl.float32)  # of the projection, plus its transpose
    for member in range(num_members):
        block = tl.load(blocks_ptr + window * num_members + member, mask, -1)
        block_mask = gram_mask & (block >= 0)[:, None, None]
        start = ((block * num_heads + head) * size * size)[:, None, None]
        grad += tl.load(grad_ptr + start + i[None, :, None] * size + i[None, None, :], block_mask, 0.0)
        grad += tl.load(grad_ptr + start + i[None, None, :] * size + i[None, :, None], block_mask, 0.0)
    grad_u = share * tl.sum(grad * u[:, None, :], 2)
    grad_u = (grad_u - u * (tl.sum(grad_u * u, 1) / norm)[:, None]) / norm[:, None]
    grad_gram = tl.zeros([BLOCK_MATRICES, BLOCK_D, BLOCK_D], tl.float32)
    for back in range(num_iters - 1):
        before, divisor = first, first_divisor
        for _iteration in range(num_iters - 2 - back):
            before, divisor = _step(gram, before, tiny)
        after, divisor = _step(gram, before, tiny)
        grad_u = grad_u / divisor[:, None]
        grad_gram += grad_u[:, :, None] * before[:, None, :]
        grad_u = tl.sum(gram * grad_u[:, :, None], 1)
    grad_sums_ptr += case * num_windows * num_heads * stride
    tl.store(grad_sums_ptr + gram_offsets, grad_gram / trace[:, None, None], gram_mask)
    tl.store(grad_sums_ptr + row_offsets, grad_u / first_divisor[:, None], row_mask)


def project_windows(block_sums: Tensor, members: Membership, num_iters: int) -> tuple[Tensor, Tensor]:
    """Sums (B, windows, heads, d, d + 1) and projections (B, windows, heads, d, d) of windows.

    block_sums: (B, blocks, heads, d, d + 1), Gram matrix and row sum of each block, float32, contiguous.
    """
    cases, _, heads, size, _ = block_sums.shape
    windows = members.blocks.shape[0]
    window_sums = block_sums.new_empty(cases, windows, heads, size, size + 1)
    projections = block_sums.new_empty(cases, windows, heads, size, size)
    wrap_triton(_project)[(triton.cdiv(windows * heads, _MATRICES), cases)](
        block_sums, members.blocks, window_sums, projections, *_sizes(block_sums, members, num_iters)
    )
    return window_sums, projections


def project_windows_backward(grad: Tensor, window_sums: Tensor, members: Membership, num_iters: int) -> Tensor:
    """Gradient of ``window_sums``; grad: (B, blocks, heads, d, d), of the average projection of each block."""
    cases, windows, heads, *_ = window_sums.shape
    result = torch.empty_like(window_sums)
    wrap_triton(_sums_gradient)[(triton.cdiv(windows * heads, _MATRICES), cases)](
        grad, members.blocks, window_sums, result, 1 / members.num_shifts, *_sizes(grad, members, num_iters)
    )
    return result


def _sizes(per_block: Tensor, members: Membership, num_iters: int) -> tuple[int | float, ...]:
    _, blocks, heads, size, _ = per_block.shape
    windows, num_members = members.blocks.shape
    return windows, num_members, blocks, heads, size, num_iters, _TINY, _MATRICES, triton.next_power_of_2(size)
