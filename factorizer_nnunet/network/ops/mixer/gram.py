"""Rank-1 NMF of all windows of all shifts, by Gram matrices.

For a nonnegative matrix X (d, N) and rank 1, the nonnegativity projections of HALS never act, so T updates of both
factors from the constant start v₀ = 1 are T - 1 power iterations on G = X Xᵀ:

    u₁ ∝ X 1,   u_{t+1} ∝ G u_t,   U Vᵀ = P X   with   P = u_T u_Tᵀ / (u_Tᵀ u_T).

G and the row sums X 1 are sums over voxels. They are computed once per block and summed over the blocks of each window
of each shift, and the projections P of all windows that contain a block are averaged: X is read twice and written once,
for any number of iterations and shifts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from factorizer_nnunet.network.layout import from_blocks, moved, moved_back, to_blocks
from factorizer_nnunet.network.nmf import NMFSettings, Start, full_precision
from factorizer_nnunet.network.windows import AxisGrid, Family, WindowGrid

_GROUP_CHANNELS = 16  # of the heads that share a matrix product


def leading_direction(gram: Tensor, row_sum: Tensor, num_iters: int) -> Tensor:
    """u after ``num_iters`` rank-1 NMF updates, up to its scale; zero where the matrix is zero.

    gram: (..., d, d) = X Xᵀ; row_sum: (..., d, 1) = X v₀; returns (..., d, 1). Callers use only the direction, so the
    factors that keep u near 1 are constants to autograd.
    """
    trace = gram.detach().diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    gram = gram / trace.clamp_min(torch.finfo(gram.dtype).tiny)
    u = _rescaled(row_sum)
    for _ in range(num_iters - 1):
        u = _rescaled(gram @ u)
    return u


def leading_projection(gram: Tensor, row_sum: Tensor, num_iters: int) -> Tensor:
    """P = u uᵀ / (uᵀ u), (..., d, d), of ``leading_direction``; zero where the matrix is zero."""
    u = leading_direction(gram, row_sum, num_iters)
    return (u @ u.mT) / u.square().sum(-2, keepdim=True).clamp_min(torch.finfo(u.dtype).tiny)


def _rescaled(u: Tensor) -> Tensor:
    """u divided by its largest entry, so that products neither overflow nor vanish."""
    return u / u.detach().amax(-2, keepdim=True).clamp_min(torch.finfo(u.dtype).tiny)


def project_rank_one(x: Tensor, start: Start, nmf: NMFSettings) -> Tensor:
    """Rank-1 NMF of matrices from any start, with ``nmf.num_grad_steps`` respected.

    x: (..., N, d), the matrices transposed; returns the reconstructions, (..., N, d).
    """
    v = start(x.mT)[1]  # (..., N, 1)
    gram = x.mT @ x
    if nmf.num_constant_steps:
        with torch.no_grad():
            v = x @ leading_direction(gram, x.mT @ v, nmf.num_constant_steps)
    return x @ leading_projection(gram, x.mT @ v, nmf.num_iters - nmf.num_constant_steps)


def mix_rank_one(x: Tensor, grid: WindowGrid, head_dim: int, num_iters: int) -> Tensor:
    """Replace every window of every head by its rank-1 NMF, averaged over shifts.

    x: (B, *spatial, C) nonnegative, channels last; returns the same shape. Call it with autocast off.
    """
    heads = heads_per_group(x.shape[-1], head_dim)
    blocks = to_blocks(x, grid.axes, heads * head_dim)  # (B, *blocks, groups, voxels of a block, channels of a group)
    gram, row_sum = _BlockSums.apply(blocks)
    row_sum = row_sum.unflatten(-1, (heads, head_dim))[..., None]
    sums = torch.cat((head_blocks(gram, heads), row_sum), -1).flatten(-4, -3)
    projection = average_projection(sums, grid, num_iters).unflatten(-3, (-1, heads))
    return from_blocks(_Product.apply(blocks, block_diagonal(projection)), grid.axes)


def mix_families(x: Tensor, families: Sequence[Family], head_dim: int, num_iters: int) -> Tensor:
    """``mix_rank_one`` over all shifts, one family of them after the other.

    x: (B, *spatial, C) nonnegative, channels last; returns the same shape. Call it with autocast off.
    """
    if len(families) == 1 and not families[0].moves:
        return mix_rank_one(x, families[0].grid, head_dim, num_iters)
    total = torch.zeros((), device=x.device)
    for family, share in zip(families, shift_shares(families), strict=True):
        mixed = full_precision(mix_rank_one(moved(x, family), family.grid, head_dim, num_iters))
        total = total + share * moved_back(mixed, family, x.shape[1:-1])
    return total.to(x.dtype)


def shift_shares(families: Sequence[Family]) -> list[float]:
    """The weight of each family in the average over all shifts: its share of them."""
    counts = [len(family.grid.offsets) for family in families]
    return [count / sum(counts) for count in counts]


def heads_per_group(channels: int, head_dim: int) -> int:
    """How many heads share one matrix product; a divisor of the number of heads.

    Products with 8×8 matrices are too small for vector units. With two heads side by side, half of each Gram matrix is
    discarded, but a training step of the mixer takes only 0.6 of the time (24×32×24 voxels, 32 channels, CPU).
    """
    num_heads = channels // head_dim
    return max(h for h in range(1, num_heads + 1) if num_heads % h == 0 and (h == 1 or h * head_dim <= _GROUP_CHANNELS))


class _BlockSums(torch.autograd.Function):
    """Gram matrix and row sum of every block, at least in float32; with a backward pass of one product.

    blocks: (..., voxels, c); returns (..., c, c) and (..., c). In float16 the sum of 512 squares would overflow for
    activations of 11 or more. With S and s the gradients, dX = X (S + Sᵀ) + 1 sᵀ; autograd would take two products.
    """

    @staticmethod
    def forward(ctx: Any, blocks: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(blocks)
        wide = full_precision(blocks)
        return wide.mT @ wide, wide.sum(-2)

    @staticmethod
    def backward(ctx: Any, grad_gram: Tensor, grad_sum: Tensor) -> Tensor:
        (blocks,) = ctx.saved_tensors
        *_, voxels, channels = blocks.shape
        flat = full_precision(blocks).reshape(-1, voxels, channels)
        symmetric = (grad_gram + grad_gram.mT).reshape(-1, channels, channels)
        grad = torch.baddbmm(grad_sum.reshape(-1, 1, channels), flat, symmetric)
        return grad.reshape(blocks.shape).to(blocks.dtype)


class _Product(torch.autograd.Function):
    """X P in the precision of X; the gradient of P, a sum over voxels, is at least in float32.

    blocks: (..., voxels, c), matrices: (..., c, c); returns (..., voxels, c).
    """

    @staticmethod
    def forward(ctx: Any, blocks: Tensor, matrices: Tensor) -> Tensor:
        ctx.save_for_backward(blocks, matrices)
        return blocks @ matrices.to(blocks.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        blocks, matrices = ctx.saved_tensors
        return grad @ matrices.mT.to(grad.dtype), full_precision(blocks).mT @ full_precision(grad)


def head_blocks(gram: Tensor, heads: int) -> Tensor:
    """The Gram matrices of single heads on the diagonal of a group's: (..., c, c) to (..., heads, d, d)."""
    split = gram.unflatten(-1, (heads, -1)).unflatten(-3, (heads, -1))
    return split.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)


def block_diagonal(matrices: Tensor) -> Tensor:
    """The inverse of ``head_blocks``, zero elsewhere: (..., heads, d, d) to (..., heads * d, heads * d)."""
    heads, size = matrices.shape[-3:-1]
    if heads == 1:
        return matrices.squeeze(-3)
    padded = [F.pad(head, (i * size, (heads - 1 - i) * size)) for i, head in enumerate(matrices.unbind(-3))]
    return torch.cat(padded, -2)


def average_projection(sums: Tensor, grid: WindowGrid, num_iters: int) -> Tensor:
    """For each block, the average over shifts of the projection of the window that contains it.

    sums: (B, *blocks, heads, d, d + 1), Gram matrix and row sum of each block; returns (B, *blocks, heads, d, d).
    """
    shifted = [_over_axes(_sum_blocks, sums, grid, offset) for offset in grid.offsets]
    # One iteration for the windows of all shifts: the matrices are so small that calls cost more than arithmetic.
    together = torch.cat([windows.flatten(0, -3) for windows in shifted])
    projections = leading_projection(together[..., :-1], together[..., -1:], num_iters)
    parts = projections.split([math.prod(windows.shape[:-2]) for windows in shifted])
    total = torch.zeros((), dtype=sums.dtype, device=sums.device)
    for part, windows, offset in zip(parts, shifted, grid.offsets, strict=True):
        part = part.reshape(*windows.shape[:-1], windows.shape[-2])
        total = total + _over_axes(_spread_to_blocks, part, grid, offset)
    return total / len(grid.offsets)


def _over_axes(
    function: Callable[[Tensor, int, AxisGrid, int], Tensor], x: Tensor, grid: WindowGrid, offset: Sequence[int]
) -> Tensor:
    """Apply ``_sum_blocks`` or ``_spread_to_blocks`` along every spatial axis."""
    for dim, (axis, start) in enumerate(zip(grid.axes, offset, strict=True), 1):
        x = function(x, dim, axis, start)
    return x


def _sum_blocks(sums: Tensor, dim: int, axis: AxisGrid, start: int) -> Tensor:
    """Sum the blocks of each window along ``dim``; the window borders are ``start`` blocks from the first block."""
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
    """The transpose of ``_sum_blocks``: give every block the value of its window."""
    count = axis.blocks_per_window
    if count == 1:
        return windows
    blocks = windows.repeat_interleave(count, dim)
    return blocks.roll(start, dim) if axis.cyclic else blocks.narrow(dim, -start % count, axis.num_blocks)
