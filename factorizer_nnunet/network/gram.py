"""Rank-1 NMF of all windows of all shifts, by Gram matrices.

For a nonnegative matrix X (d, N) and rank 1 the nonnegativity projections of HALS and multiplicative updates never
act, so T updates of both factors from the constant start v₀ = 1 are T - 1 power iterations on G = X Xᵀ:

    u₁ ∝ X 1,   u_{t+1} ∝ G u_t,   U Vᵀ = P X   with   P = u_T u_Tᵀ / (u_Tᵀ u_T).

G and the row sums a = X 1 add up over voxels. They are formed once per block, summed into the windows of each
shift, and the projections P of all windows that contain a block are averaged: X is read twice and written once,
whatever the number of iterations and shifts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from factorizer_nnunet.network.layout import from_blocks, to_blocks
from factorizer_nnunet.network.nmf import NMFSettings
from factorizer_nnunet.network.windows import AxisGrid, WindowGrid


def leading_direction(gram: Tensor, first: Tensor, num_iters: int) -> Tensor:
    """u after ``num_iters`` rank-1 NMF updates, up to its scale; zero where the matrix is zero.

    gram: (..., d, d) = X Xᵀ; first: (..., d, 1) = X v₀; returns (..., d, 1). What uses the result depends only on its
    direction, so the scales that keep u near 1 are constants to autograd.
    """
    trace = gram.detach().diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    gram = gram / trace.clamp_min(torch.finfo(gram.dtype).tiny)
    u = _rescaled(first)
    for _ in range(num_iters - 1):
        u = _rescaled(gram @ u)
    return u


def leading_projection(gram: Tensor, first: Tensor, num_iters: int) -> Tensor:
    """P = u uᵀ / (uᵀ u), (..., d, d), of ``leading_direction``; zero where the matrix is zero."""
    u = leading_direction(gram, first, num_iters)
    return (u @ u.mT) / u.square().sum(-2, keepdim=True).clamp_min(torch.finfo(u.dtype).tiny)


def _rescaled(u: Tensor) -> Tensor:
    """u divided by its largest entry, so that products neither overflow nor vanish."""
    return u / u.detach().amax(-2, keepdim=True).clamp_min(torch.finfo(u.dtype).tiny)


def project_rank_one(x: Tensor, v: Tensor, nmf: NMFSettings) -> Tensor:
    """Rank-1 NMF of matrices from any start, gradients through the last updates only if so set.

    x: (..., N, d), the matrices transposed; v: (..., N, 1) = V₀; returns the reconstructions, (..., N, d).
    """
    gram = x.mT @ x
    if nmf.num_constant_steps:
        with torch.no_grad():
            v = x @ leading_direction(gram, x.mT @ v, nmf.num_constant_steps)
    return x @ leading_projection(gram, x.mT @ v, nmf.num_iters - nmf.num_constant_steps)


def mix_rank_one(x: Tensor, grid: WindowGrid, head_dim: int, num_iters: int) -> Tensor:
    """Replace every window of every head by its rank-1 NMF, averaged over shifts.

    x: (B, *spatial, C) nonnegative, channels last; returns the same shape. Call it with autocast off.
    """
    blocks = to_blocks(x, grid.axes, head_dim)  # (B, *blocks, heads, voxels of a block, head_dim)
    # In half precision the sum of 512 squares overflows from activations of 11 on.
    wide = blocks.float() if blocks.dtype in (torch.float16, torch.bfloat16) else blocks
    row_sum = wide.sum(-2)[..., None]
    projection = _average_projection(torch.cat((wide.mT @ wide, row_sum), -1), grid, num_iters)
    return from_blocks(blocks @ projection.to(blocks.dtype), grid.axes)


def _average_projection(sums: Tensor, grid: WindowGrid, num_iters: int) -> Tensor:
    """Average over shifts of the projection of the window that holds each block.

    sums: (B, *blocks, heads, d, d + 1), Gram matrix and row sum of each block; returns (B, *blocks, heads, d, d).
    """
    total: Tensor | None = None
    for offset in grid.offsets:
        windows = sums
        for dim, (axis, start) in enumerate(zip(grid.axes, offset, strict=True), 1):
            windows = _sum_blocks(windows, dim, axis, start)
        projection = leading_projection(windows[..., :-1], windows[..., -1:], num_iters)
        for dim, (axis, start) in enumerate(zip(grid.axes, offset, strict=True), 1):
            projection = _spread_to_blocks(projection, dim, axis, start)
        total = projection if total is None else total + projection
    return total / len(grid.offsets)


def _sum_blocks(sums: Tensor, dim: int, axis: AxisGrid, start: int) -> Tensor:
    """Add up the blocks of each window along ``dim``, borders ``start`` blocks from the first."""
    count = axis.blocks_per_window
    if count == 1:
        return sums
    if axis.cyclic:
        return sums.roll(-start, dim).unflatten(dim, (-1, count)).sum(dim + 1)
    front = -start % count
    back = -(front + sums.shape[dim]) % count
    padding = [0, 0] * (sums.ndim - dim - 1) + [front, back]
    return F.pad(sums, padding).unflatten(dim, (-1, count)).sum(dim + 1)


def _spread_to_blocks(windows: Tensor, dim: int, axis: AxisGrid, start: int) -> Tensor:
    """The inverse walk of ``_sum_blocks``: give every block the value of its window."""
    count = axis.blocks_per_window
    if count == 1:
        return windows
    blocks = windows.repeat_interleave(count, dim)
    return blocks.roll(start, dim) if axis.cyclic else blocks.narrow(dim, -start % count, axis.num_blocks)
