"""The NMF branch on the CPU in slabs of blocks that fit the cache; rank 1, constant start.

For the same reason as in ``slices``: less memory traffic. With H the hidden voxels of a block, relu(in_proj(norm(X))),
and P its averaged projection (``gram``), the branch is H M + b, to which X may be added. M = P Wᵀ is a matrix per
block; W and b belong to ``out_proj``. There are two passes over the volume forward: the first sums the Gram matrices of
H, from which P follows; the second applies M. There are two passes backward, G being the gradient: the first forms
dL/dM = Hᵀ G, which gives dL/dW, dL/dP and, by autograd through P, the gradients S and s of Gram matrices and row sums;
the second forms dL/dH = G Mᵀ + H (S + Sᵀ) + 1 sᵀ. All families of shifts share one H. Only x and the sums are kept for
the backward pass, which computes H again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from factorizer_nnunet.network.ops import slices
from factorizer_nnunet.network.ops.mixer.gram import (
    average_projection,
    block_diagonal,
    head_blocks,
    heads_per_group,
    shift_shares,
)
from factorizer_nnunet.network.ops.mixer.reference import MixerLayer
from factorizer_nnunet.network.ops.mixer.slabs import Slab, slabs
from factorizer_nnunet.network.ops.norm.linear_fusion import FusableNorm, fold_scale_and_shift, norm_and_linear
from factorizer_nnunet.network.windows import Family, WindowGrid


class _Settings(NamedTuple):
    """How the branch is computed: windows by families of shifts, channels of a head, iterations, ε of the norm.

    ``residual``: whether it is added to x.
    """

    families: Sequence[Family]
    head_dim: int
    num_iters: int
    eps: float
    residual: bool

    def hidden_voxels(self, voxels: Tensor, case: int, *norm_in: Tensor) -> Tensor:
        """Rows of H from voxels (n, C) of a case; ``norm_in`` are scale and shift of the norm and the first weight."""
        return norm_and_linear(voxels, case, self.eps, *norm_in).relu_()

    def hidden(self, x: Tensor, norm_in: Sequence[Tensor]) -> Tensor:
        """H, the matrices to factorize: relu(in_proj(norm(x))), (B, *spatial, C)."""
        return slices.apply(self.hidden_voxels, x, x.shape[-1], norm_in, torch.empty_like(x))


def normed_mixer(x: Tensor, norm: FusableNorm, mixer: MixerLayer, *, residual: bool) -> Tensor:
    """As ``reference.normed_mixer``, for settings with ``supports_block_gram``."""
    x = x.contiguous()
    scale, shift, eps = fold_scale_and_shift(norm, x)
    settings = _Settings(mixer.families(x.shape[1:-1]), mixer.head_dim, mixer.nmf.num_iters, eps, residual)
    tensors = (mixer.out_proj.weight, mixer.out_proj.bias, scale, shift, mixer.in_proj.weight)
    return _NormedMixer.apply(settings, x, *tensors)


class _NormedMixer(torch.autograd.Function):
    """weight: (C, C) and bias: (C,) of ``out_proj``."""

    @staticmethod
    def forward(ctx: Any, settings: _Settings, x: Tensor, weight: Tensor, bias: Tensor, *norm_in: Tensor) -> Tensor:
        families, head_dim, num_iters, _, residual = settings
        hidden = settings.hidden(x, norm_in)
        # With a single family, each voxel of H is read for the last time just before its result is written.
        mixed = hidden if len(families) == 1 else torch.zeros_like(hidden)
        all_sums = []
        for family, share in zip(families, shift_shares(families), strict=True):
            family_slabs = slabs(x, family)
            sums = _sum_blocks(hidden, family_slabs, family.grid, head_dim)
            projection = average_projection(sums, family.grid, num_iters)
            per_head = share * weight.mT.unflatten(0, (-1, head_dim))
            for slab in family_slabs:
                matrices = (slab.select_blocks(projection) @ per_head).flatten(-3, -2)
                part = torch.baddbmm(share * bias, slab.load(hidden), matrices)
                slab.store(part, mixed, add=mixed is not hidden)
            all_sums.append(sums)
        ctx.save_for_backward(x, weight, *norm_in, *all_sums)
        ctx.settings = settings
        return mixed.add_(x) if residual else mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        families, head_dim, num_iters, _, residual = ctx.settings
        x, weight, *norm_in = ctx.saved_tensors
        norm_in, all_sums = norm_in[: -len(families)], norm_in[-len(families) :]
        grad = grad.contiguous()
        hidden = ctx.settings.hidden(x, norm_in)
        grad_hidden = hidden if len(families) == 1 else torch.zeros_like(hidden)
        grad_weight = torch.zeros_like(weight)
        for family, share, sums in zip(families, shift_shares(families), all_sums, strict=True):
            with torch.enable_grad():
                sums = sums.detach().requires_grad_()
                projection = average_projection(sums, family.grid, num_iters)
            per_head = share * weight.mT.unflatten(0, (-1, head_dim))
            arguments = (hidden, grad, slabs(x, family), projection.detach(), per_head)
            grad_projection, grad_per_head = _projection_gradients(*arguments)
            grad_weight += share * grad_per_head.flatten(0, 1).mT
            (grad_sums,) = torch.autograd.grad(projection, sums, grad_projection)
            _add_hidden_gradient(grad_hidden, *arguments, grad_sums)
        grad_x, *grad_norm_in = slices.gradients(
            ctx.settings.hidden_voxels, x, x.shape[-1], norm_in, grad_hidden, out=grad_hidden
        )
        if residual:
            grad_x.add_(grad)
        return None, grad_x, grad_weight, grad.flatten(0, -2).sum(0), *grad_norm_in


def _projection_gradients(
    hidden: Tensor, grad: Tensor, family_slabs: Sequence[Slab], projection: Tensor, per_head: Tensor
) -> tuple[Tensor, Tensor]:
    """First backward pass: gradients of the projections (B, *blocks, heads, d, d) and of ``per_head``.

    per_head: (heads, d, C), the family's share of Wᵀ, by heads.
    """
    grad_projection, grad_per_head = torch.empty_like(projection), torch.zeros_like(per_head)
    for slab in family_slabs:
        grad_matrices = (slab.load(hidden).mT @ slab.load(grad)).unflatten(-2, (-1, per_head.shape[1]))
        slab.store_blocks(grad_matrices @ per_head.mT, grad_projection)
        projections = slab.select_blocks(projection)
        grad_per_head += projections.movedim(0, 2).flatten(2) @ grad_matrices.movedim(0, 1).flatten(1, 2)
    return grad_projection, grad_per_head


def _add_hidden_gradient(
    grad_hidden: Tensor,
    hidden: Tensor,
    grad: Tensor,
    family_slabs: Sequence[Slab],
    projection: Tensor,
    per_head: Tensor,
    grad_sums: Tensor,
) -> None:
    """Second backward pass: add dL/dH of a family to ``grad_hidden``, or replace H by it if both are one tensor."""
    for slab in family_slabs:
        slopes = slab.select_blocks(grad_sums)
        matrices = (slab.select_blocks(projection) @ per_head).flatten(-3, -2)
        result = torch.baddbmm(slopes[..., -1].flatten(1)[:, None], slab.load(grad), matrices.mT)
        _add_product(result, slab.load(hidden), slopes[..., :-1] + slopes[..., :-1].mT)
        slab.store(result, grad_hidden, add=grad_hidden is not hidden)


def _sum_blocks(hidden: Tensor, family_slabs: Sequence[Slab], grid: WindowGrid, head_dim: int) -> Tensor:
    """Gram matrix and row sum of each block, (B, *blocks, heads, d, d + 1)."""
    channels = hidden.shape[-1]
    heads = heads_per_group(channels, head_dim)
    counts = [axis.num_blocks for axis in grid.axes]
    sums = hidden.new_empty(hidden.shape[0], *counts, channels // head_dim, head_dim, head_dim + 1)
    for slab in family_slabs:
        blocks = slab.load(hidden)
        grams = [head_blocks(group.mT @ group, heads) for group in blocks.split(heads * head_dim, -1)]
        row_sums = blocks.sum(1).unflatten(-1, (-1, head_dim))
        slab.store_blocks(torch.cat((torch.cat(grams, 1), row_sums[..., None]), -1), sums)
    return sums


def _add_product(target: Tensor, hidden: Tensor, matrices: Tensor) -> None:
    """Add to (n, voxels, C) the product of each head's channels with its matrix; matrices: (n, heads, d, d)."""
    heads = heads_per_group(hidden.shape[-1], matrices.shape[-1])
    width = heads * matrices.shape[-1]
    groups = zip(hidden.split(width, -1), target.split(width, -1), matrices.split(heads, 1), strict=True)
    for hidden_group, target_group, group_matrices in groups:
        target_group += hidden_group @ block_diagonal(group_matrices)
