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

from factorizer_nnunet.network.windows import WindowGrid


def leading_projection(gram: Tensor, row_sum: Tensor, num_iters: int) -> Tensor:
    """P = u uᵀ / (uᵀ u) after ``num_iters`` rank-1 NMF updates; zero where the matrix is zero.

    gram: (..., d, d) = X Xᵀ; row_sum: (..., d) = X 1; returns (..., d, d). P depends only on the direction of u,
    so the scales that keep u near 1 are constants to autograd.
    """
    tiny = torch.finfo(gram.dtype).tiny
    trace = gram.detach().diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    gram = gram / trace.clamp_min(tiny)
    u = _rescaled(row_sum)[..., None]
    for _ in range(num_iters - 1):
        u = _rescaled(gram @ u, dim=-2)
    return (u @ u.mT) / u.square().sum(-2, keepdim=True).clamp_min(tiny)


def _rescaled(u: Tensor, dim: int = -1) -> Tensor:
    """u divided by its largest entry, so that products neither overflow nor vanish."""
    return u / u.detach().amax(dim, keepdim=True).clamp_min(torch.finfo(u.dtype).tiny)


def mix_rank_one(x: Tensor, grid: WindowGrid, head_dim: int, num_iters: int) -> Tensor:
    """Replace every window of every head by its rank-1 NMF, averaged over shifts.

    x: (B, *spatial, C) nonnegative, channels last; returns the same shape. Heads are consecutive groups of
    ``head_dim`` channels.
    """
    blocks = _to_blocks(x, grid, head_dim)  # (B, *blocks, heads, voxels of a block, head_dim)
    with torch.autocast(device_type=x.device.type, enabled=False):
        # In half precision the sum of 512 squares overflows from activations of 11 on.
        wide = blocks.float() if blocks.dtype in (torch.float16, torch.bfloat16) else blocks
        gram = wide.mT @ wide
        row_sum = wide.sum(-2)
        projection = _average_projection(torch.cat((gram, row_sum[..., None]), -1), grid, num_iters)
    return _from_blocks(blocks @ projection.to(blocks.dtype), x.shape, grid)


def _average_projection(sums: Tensor, grid: WindowGrid, num_iters: int) -> Tensor:
    """Average over shifts of the projection of the window that holds each block.

    sums: (B, *blocks, heads, d, d + 1), Gram matrix and row sum of each block; returns (B, *blocks, heads, d, d).
    """
    total: Tensor | None = None
    for offset in grid.offsets:
        windows = sums
        for axis, (layout, start) in enumerate(zip(grid.axes, offset, strict=True), 1):
            windows = _sum_blocks(windows, axis, layout.blocks_per_window, start)
        projection = leading_projection(windows[..., :-1], windows[..., -1], num_iters)
        for axis, (layout, start) in enumerate(zip(grid.axes, offset, strict=True), 1):
            projection = _spread_to_blocks(projection, axis, layout.blocks_per_window, start, layout.num_blocks)
        total = projection if total is None else total + projection
    return total / len(grid.offsets)


def _sum_blocks(sums: Tensor, axis: int, blocks_per_window: int, start: int) -> Tensor:
    """Add up runs of blocks along ``axis``, borders ``start`` blocks from the first; border windows are cut."""
    if blocks_per_window == 1:
        return sums
    front = (blocks_per_window - start) % blocks_per_window
    back = -(front + sums.shape[axis]) % blocks_per_window
    padding = [0, 0] * (sums.ndim - axis - 1) + [front, back]
    return F.pad(sums, padding).unflatten(axis, (-1, blocks_per_window)).sum(axis + 1)


def _spread_to_blocks(windows: Tensor, axis: int, blocks_per_window: int, start: int, num_blocks: int) -> Tensor:
    """The inverse walk of ``_sum_blocks``: give every block the value of its window."""
    if blocks_per_window == 1:
        return windows
    front = (blocks_per_window - start) % blocks_per_window
    return windows.repeat_interleave(blocks_per_window, axis).narrow(axis, front, num_blocks)


def _to_blocks(x: Tensor, grid: WindowGrid, head_dim: int) -> Tensor:
    """(B, *spatial, C) to (B, *blocks, heads, voxels of a block, head_dim), zero-padded to whole blocks."""
    if any(grid.padding):
        x = F.pad(x, [0, 0] + [p for pad in reversed(grid.padding) for p in (0, pad)])
    ndim = len(grid.axes)
    shape = [x.shape[0]]
    for axis in grid.axes:
        shape += [axis.num_blocks, axis.block]
    x = x.reshape(*shape, -1, head_dim)
    counts = [1 + 2 * i for i in range(ndim)]
    voxels = [2 + 2 * i for i in range(ndim)]
    heads = 1 + 2 * ndim
    return x.permute(0, *counts, heads, *voxels, heads + 1).flatten(ndim + 2, 2 * ndim + 1)


def _from_blocks(blocks: Tensor, shape: torch.Size, grid: WindowGrid) -> Tensor:
    """The inverse of ``_to_blocks``; ``shape`` is (B, *spatial, C)."""
    ndim = len(grid.axes)
    x = blocks.unflatten(ndim + 2, [axis.block for axis in grid.axes])
    order = [0]
    for i in range(ndim):
        order += [1 + i, ndim + 2 + i]
    padded = [axis.num_blocks * axis.block for axis in grid.axes]
    x = x.permute(*order, ndim + 1, 2 * ndim + 2).reshape(shape[0], *padded, shape[-1])
    if any(grid.padding):
        x = x[(slice(None), *(slice(axis.size) for axis in grid.axes))]
    return x
