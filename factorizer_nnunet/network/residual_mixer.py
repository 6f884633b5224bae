"""x + out_proj(NMF(relu(in_proj(norm(x))))) on the CPU in slabs of blocks that fit the cache; rank 1, constant start.

As ``residual_mlp``, and for the same reason. With H the hidden voxels of a block and P its averaged projection
(``gram``), the block becomes X + H M + b with M = P Wᵀ, a matrix of its own for each block, W and b those of the last
projection. Two walks over the volume forward: the first sums the Gram matrices of H, from which P follows; the second
applies M. Two walks backward, G being the gradient: the first forms dL/dM = Hᵀ G, from which follow dL/dW, dL/dP and,
led by autograd through P, the gradients S and s of Gram matrices and row sums; the second forms
dL/dH = G Mᵀ + H (S + Sᵀ) + 1 sᵀ. All families of shifts share one H; only x and the sums are kept for the backward
pass, which forms H again, once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from factorizer_nnunet.network.gram import average_projection, block_diagonal, head_blocks, heads_per_group, weights
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.norm_linear_fusion import NormAndLinear, fold, goes_in_parts, rows, slices
from factorizer_nnunet.network.slabs import Slab, scratch, slabs
from factorizer_nnunet.network.windows import Family, WindowGrid

_MOST_CHANNELS_PER_VOXEL = 2  # of a block: with more, the matrices M are more than twice as large as X
_LEAST_BYTES = 2**24  # of the volume: smaller ones gain nothing


def can_be_mixed_in_slabs(x: Tensor, norm: nn.Module, mixer: NMFMixer) -> bool:
    """Whether slabs are implemented for x and the mixer, and pay: large volumes, matrices M not much larger."""
    if not (goes_in_parts(x, norm) and x.nbytes >= _LEAST_BYTES and mixer.goes_by_blocks):
        return False
    block_voxels = (math.prod(a.block for a in family.grid.axes) for family in mixer.families(x.shape[1:-1]))
    return x.shape[-1] <= _MOST_CHANNELS_PER_VOXEL * min(block_voxels)


def residual_mixer(x: Tensor, norm: nn.Module, mixer: NMFMixer, overwrite: bool = False) -> Tensor:
    """x + mixer(norm(x)) for an instance or layer norm; a mixer that ``goes_by_blocks``.

    x: (B, *spatial, C); returns the same shape. With ``overwrite``, only for inference, the result may take the place
    of x: a new volume costs more than its values.
    """
    x = x.contiguous()
    first = fold(norm, x, mixer.in_proj.weight, None)
    settings = (mixer.families(x.shape[1:-1]), mixer.head_dim, mixer.nmf.num_iters)
    last = (mixer.out_proj.weight, mixer.out_proj.bias)
    if overwrite:
        return _mix(x, *settings, *last, first, out=x)[0]
    return _ResidualMixer.apply(x, *settings, *last, *first)


def _mix(
    x: Tensor,
    families: Sequence[Family],
    head_dim: int,
    num_iters: int,
    last: Tensor,
    last_bias: Tensor,
    first: NormAndLinear,
    out: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """The block's output, in the place of ``out`` if that helps, and the sums of every family's blocks."""
    hidden = _hidden(x, first)
    # A single family reads each voxel of H for the last time where its result goes.
    result = hidden if len(families) == 1 else torch.empty_like(x) if out is None else out
    all_sums: list[Tensor] = []
    for family, weight in zip(families, weights(families), strict=True):
        walk = slabs(x, family)
        sums = _sums(hidden, walk, head_dim, family.grid)
        projection = average_projection(sums, family.grid, num_iters)
        per_head = weight * last.mT.unflatten(0, (-1, head_dim))
        first_memory, second_memory = scratch(walk, x), scratch(walk, x)
        for slab in walk:
            matrices = (slab.among(projection) @ per_head).flatten(-3, -2)
            own = slab.matrices(hidden, first_memory)
            if all_sums:
                slab.add(torch.bmm(own, matrices, out=slab.view(second_memory, x.shape[-1])), result)
            else:
                below = slab.matrices(x, second_memory)
                slab.write(below.baddbmm_(own, matrices).add_(last_bias), result)
        all_sums.append(sums)
    return result, all_sums


class _ResidualMixer(torch.autograd.Function):
    """``last``: (C, C); ``first``: a ``NormAndLinear``."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        families: Sequence[Family],
        head_dim: int,
        num_iters: int,
        last: Tensor,
        last_bias: Tensor,
        *first: Tensor | float | None,
    ) -> Tensor:
        first = NormAndLinear(*first)
        result, all_sums = _mix(x, families, head_dim, num_iters, last, last_bias, first, out=None)
        ctx.save_for_backward(x, last, *all_sums, *first[:-1])
        ctx.settings = (families, head_dim, num_iters, first.eps)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        families, head_dim, num_iters, eps = ctx.settings
        x, last, *saved = ctx.saved_tensors
        all_sums, first = saved[: len(families)], NormAndLinear(*saved[len(families) :], eps)
        grad = grad.contiguous()
        hidden = _hidden(x, first)
        grad_hidden = hidden if len(families) == 1 else torch.zeros_like(hidden)
        grad_last = torch.zeros_like(last)
        for family, weight, sums in zip(families, weights(families), all_sums, strict=True):
            walk = slabs(x, family)
            with torch.enable_grad():
                sums = sums.detach().requires_grad_()
                projection = average_projection(sums, family.grid, num_iters)
            per_head = weight * last.mT.unflatten(0, (-1, head_dim))
            grad_projection = torch.empty_like(projection)
            grad_per_head = torch.zeros_like(per_head)
            first_memory, second_memory, third_memory = (scratch(walk, x) for _ in range(3))
            for slab in walk:
                own, over = slab.matrices(hidden, first_memory), slab.matrices(grad, second_memory)
                grad_matrices = (own.mT @ over).unflatten(-2, (-1, head_dim))
                slab.put(grad_matrices @ per_head.mT, grad_projection)
                mine = slab.among(projection.detach())
                grad_per_head += mine.movedim(0, 2).flatten(2) @ grad_matrices.movedim(0, 1).flatten(1, 2)
            grad_last += weight * grad_per_head.flatten(0, 1).mT
            (grad_sums,) = torch.autograd.grad(projection, sums, grad_projection)
            for slab in walk:
                own, over = slab.matrices(hidden, first_memory), slab.matrices(grad, second_memory)
                slopes = slab.among(grad_sums)
                matrices = (slab.among(projection.detach()) @ per_head).flatten(-3, -2)
                through = slab.view(third_memory, x.shape[-1])
                torch.baddbmm(slopes[..., -1].flatten(1)[:, None], over, matrices.mT, out=through)
                _add_product(through, own, slopes[..., :-1] + slopes[..., :-1].mT)
                through.masked_fill_(own <= 0, 0)
                if grad_hidden is hidden:
                    slab.write(through, grad_hidden)
                else:
                    slab.add(through, grad_hidden)
        grad_x, grad_first = grad_hidden, first.zeros()  # again in the place of what is not read any more
        for case, part in slices(x, x.shape[-1]):
            normed, through = first.norm(rows(x, case, part), case), rows(grad_hidden, case, part)
            through.copy_(first.backward(grad_first, normed, through, rows(grad, case, part)))
        return grad_x, None, None, None, grad_last, grad.flatten(0, -2).sum(0), *grad_first


def _hidden(x: Tensor, first: NormAndLinear) -> Tensor:
    """H, what is factorised: relu(in_proj(norm(x))), (B, *spatial, C)."""
    hidden = torch.empty_like(x)
    for case, part in slices(x, x.shape[-1]):
        first.linear(first.norm(rows(x, case, part), case), out=rows(hidden, case, part)).relu_()
    return hidden


def _sums(hidden: Tensor, walk: Sequence[Slab], head_dim: int, grid: WindowGrid) -> Tensor:
    """Gram matrix and row sum of each block, (B, *blocks, heads, d, d + 1)."""
    channels = hidden.shape[-1]
    heads = heads_per_group(channels, head_dim)
    counts = [axis.num_blocks for axis in grid.axes]
    sums = hidden.new_empty(hidden.shape[0], *counts, channels // head_dim, head_dim, head_dim + 1)
    memory = scratch(walk, hidden)
    for slab in walk:
        own = slab.matrices(hidden, memory)
        grams = [head_blocks(group.mT @ group, heads) for group in own.split(heads * head_dim, -1)]
        row_sums = own.sum(1).unflatten(-1, (-1, head_dim))
        slab.put(torch.cat((torch.cat(grams, 1), row_sums[..., None]), -1), sums)
    return sums


def _add_product(target: Tensor, hidden: Tensor, matrices: Tensor) -> None:
    """Add to (n, voxels, C) the product of each head's channels with its matrix; matrices: (n, heads, d, d)."""
    heads = heads_per_group(hidden.shape[-1], matrices.shape[-1])
    width = heads * matrices.shape[-1]
    for group, into, part in zip(
        hidden.split(width, -1), target.split(width, -1), matrices.split(heads, 1), strict=True
    ):
        into += group @ block_diagonal(part)
