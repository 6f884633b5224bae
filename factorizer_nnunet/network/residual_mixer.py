"""x + out_proj(NMF(relu(in_proj(norm(x))))) on the CPU in slabs of blocks that fit the cache; rank 1, constant start.

As ``residual_mlp``, and for the same reason. With H the hidden voxels of a block and P its averaged projection
(``gram``), the block becomes X + H M + b with M = P Wᵀ, a matrix of its own for each block, W and b those of the last
projection. Two walks over the volume forward: the first sums the Gram matrices of H, from which P follows; the second
applies M. Two walks backward, G being the gradient: the first forms dL/dM = Hᵀ G, from which follow dL/dW, dL/dP and,
led by autograd through P, the gradients S and s of Gram matrices and row sums; the second forms
dL/dH = G Mᵀ + H (S + Sᵀ) + 1 sᵀ. H is computed again in every walk: only x and the sums are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from factorizer_nnunet.network.folding import NormAndLinear, Normed, fold, goes_in_parts
from factorizer_nnunet.network.gram import average_projection, block_diagonal, head_blocks, heads_per_group, weights
from factorizer_nnunet.network.layout import moved, moved_back, to_blocks, write_blocks
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.windows import AxisGrid, Family, WindowGrid

_SLAB_BYTES = 2**19
_MOST_CHANNELS_PER_VOXEL = 2  # of a block: with more, the matrices M are more than twice as large as X
_LEAST_BYTES = 2**24  # of the volume: smaller ones gain nothing


@dataclass(frozen=True)
class Slab:
    """Whole blocks of a case: where they lie in the volume, and among the blocks."""

    case: int
    voxels: tuple[slice, ...]  # along all axes but the last one, which is whole
    blocks: tuple[slice, ...]
    axes: tuple[AxisGrid, ...]

    def of(self, volume: Tensor) -> Tensor:
        """The slab's voxels of (B, *spatial, C), a view with B = 1."""
        return volume[(slice(self.case, self.case + 1), *self.voxels)]

    def matrices(self, volume: Tensor) -> Tensor:
        """The slab's voxels as (blocks, voxels of a block, C), zeros where a block leaves the volume; a copy."""
        return to_blocks(self.of(volume), self.axes, volume.shape[-1]).flatten(0, -3)

    def write(self, matrices: Tensor, volume: Tensor) -> None:
        """Put ``matrices`` in their place of the volume (B, *spatial, C)."""
        counts = [axis.num_blocks for axis in self.axes]
        write_blocks(matrices.reshape(1, *counts, 1, *matrices.shape[1:]), self.of(volume), self.axes)

    def among(self, blocks: Tensor) -> Tensor:
        """The slab's blocks of (B, *blocks, …), as (blocks, …); a view, or a copy where they do not adjoin."""
        return blocks[(self.case, *self.blocks)].flatten(0, len(self.axes) - 1)

    def put(self, values: Tensor, blocks: Tensor) -> None:
        """Put (blocks, …) in their place of (B, *blocks, …)."""
        place = blocks[(self.case, *self.blocks)]
        place.copy_(values.reshape(place.shape))


def slabs(volume: Tensor, grid: WindowGrid) -> list[Slab]:
    """All slabs of a volume (B, *spatial, C): a row of blocks along the first axis, as many as fit along the second."""
    *outer, last = grid.axes
    row = last.size * volume.shape[-1] * volume.element_size()
    pieces: list[list[tuple[slice, slice, AxisGrid]]] = []
    budget = _SLAB_BYTES // row
    for axis in outer:
        length = max(1, budget // axis.block) if axis is outer[-1] else 1
        budget //= axis.block
        pieces.append([_piece(axis, start, length) for start in range(0, axis.num_blocks, length)])
    combined = [[first] for first in pieces[0]]
    for more in pieces[1:]:
        combined = [[*chosen, piece] for chosen in combined for piece in more]
    return [
        Slab(case, tuple(p[0] for p in chosen), tuple(p[1] for p in chosen), (*(p[2] for p in chosen), last))
        for case in range(volume.shape[0])
        for chosen in combined
    ]


def _piece(axis: AxisGrid, start: int, length: int) -> tuple[slice, slice, AxisGrid]:
    """``length`` blocks of an axis from block ``start`` on: their voxels, their numbers, and an axis of their own."""
    stop = min(start + length, axis.num_blocks)
    voxels = slice(start * axis.block, min(stop * axis.block, axis.size))
    return voxels, slice(start, stop), replace(axis, size=voxels.stop - voxels.start, num_blocks=stop - start)


def can_be_mixed_in_slabs(x: Tensor, norm: nn.Module, mixer: NMFMixer) -> bool:
    """Whether slabs are implemented for x and the mixer, and pay: large volumes, matrices M not much larger."""
    if not (goes_in_parts(x, norm) and x.nbytes >= _LEAST_BYTES and mixer.goes_by_blocks):
        return False
    block_voxels = (math.prod(a.block for a in family.grid.axes) for family in mixer.families(x.shape[1:-1]))
    return x.shape[-1] <= _MOST_CHANNELS_PER_VOXEL * min(block_voxels)


def residual_mixer(x: Tensor, norm: nn.Module, mixer: NMFMixer) -> Tensor:
    """x + mixer(norm(x)) for an instance or layer norm; a mixer that ``goes_by_blocks``.

    x: (B, *spatial, C); returns the same shape.
    """
    x = x.contiguous()
    first = fold(norm, x, mixer.in_proj.weight, None)
    settings = (mixer.families(x.shape[1:-1]), mixer.head_dim, mixer.nmf.num_iters)
    return _ResidualMixer.apply(x, *settings, mixer.out_proj.weight, mixer.out_proj.bias, *first)


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
        result, all_sums = None, []
        for family, weight in zip(families, weights(families), strict=True):
            volume = moved(x, family)
            walk, mask = slabs(volume, family.grid), _inside(x, family)
            sums = _sums(volume, walk, mask, first, head_dim, family.grid)
            projection = average_projection(sums, family.grid, num_iters)
            per_head = weight * last.mT.unflatten(0, (-1, head_dim))
            part = torch.empty_like(volume)
            for slab in walk:
                own = slab.matrices(volume)
                hidden = _hidden(own, slab, first, mask)[1]
                applied = (slab.among(projection) @ per_head).flatten(-3, -2)
                if result is None:
                    slab.write(torch.baddbmm(own, hidden, applied).add_(last_bias), part)
                else:
                    slab.write(hidden @ applied, part)
            part = moved_back(part, family, x.shape[1:-1])
            result = part if result is None else result.add_(part)
            all_sums.append(sums)
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
        grad_x, grad_first, grad_last = None, first.zeros(), torch.zeros_like(last)
        for family, weight, sums in zip(families, weights(families), all_sums, strict=True):
            volume, above = moved(x, family), moved(grad, family)
            walk, mask = slabs(volume, family.grid), _inside(x, family)
            with torch.enable_grad():
                sums = sums.detach().requires_grad_()
                projection = average_projection(sums, family.grid, num_iters)
            per_head = weight * last.mT.unflatten(0, (-1, head_dim))
            grad_projection = torch.empty_like(projection)
            grad_per_head = torch.zeros_like(per_head)
            for slab in walk:
                hidden = _hidden(slab.matrices(volume), slab, first, mask)[1]
                grad_applied = (hidden.mT @ slab.matrices(above)).unflatten(-2, (-1, head_dim))
                slab.put(grad_applied @ per_head.mT, grad_projection)
                mine = slab.among(projection.detach())
                grad_per_head += mine.movedim(0, 2).flatten(2) @ grad_applied.movedim(0, 1).flatten(1, 2)
            grad_last += weight * grad_per_head.flatten(0, 1).mT
            (grad_sums,) = torch.autograd.grad(projection, sums, grad_projection)
            part = torch.empty_like(volume)
            for slab in walk:
                own, over = slab.matrices(volume), slab.matrices(above)
                normed, hidden = _hidden(own, slab, first, mask)
                applied = (slab.among(projection.detach()) @ per_head).flatten(-3, -2)
                slopes = slab.among(grad_sums)
                through = torch.baddbmm(slopes[..., -1].flatten(1)[:, None], over, applied.mT)
                _add_product(through, hidden, slopes[..., :-1] + slopes[..., :-1].mT)
                through = torch.where(hidden > 0, through, 0).flatten(0, 1)
                passing = over.flatten(0, 1) if grad_x is None else torch.zeros_like(through)
                slab.write(first.backward(grad_first, normed, through, passing).view_as(own), part)
            part = moved_back(part, family, x.shape[1:-1])
            grad_x = part if grad_x is None else grad_x.add_(part)
        return grad_x, None, None, None, grad_last, grad.flatten(0, -2).sum(0), *grad_first


def _inside(x: Tensor, family: Family) -> Tensor | None:
    """1 for each voxel of the volume and 0 where blocks leave it, (1, *moved, 1); None if they never do."""
    axes = family.grid.axes
    if all(axis.size == size and not axis.padding for axis, size in zip(axes, x.shape[1:-1], strict=True)):
        return None
    return moved(x.new_ones(1, *x.shape[1:-1], 1), family)


def _hidden(own: Tensor, slab: Slab, first: NormAndLinear, mask: Tensor | None) -> tuple[Normed, Tensor]:
    """What is factorised, (blocks, voxels of a block, C), and the normed voxels that it comes from."""
    normed = first.norm(own.flatten(0, 1), slab.case)
    hidden = first.linear(normed).relu_().view_as(own)
    if mask is not None:
        hidden *= replace(slab, case=0).matrices(mask)
    return normed, hidden


def _sums(
    volume: Tensor, walk: Sequence[Slab], mask: Tensor | None, first: NormAndLinear, head_dim: int, grid: WindowGrid
) -> Tensor:
    """Gram matrix and row sum of each block, (B, *blocks, heads, d, d + 1)."""
    channels = volume.shape[-1]
    heads = heads_per_group(channels, head_dim)
    counts = [axis.num_blocks for axis in grid.axes]
    sums = volume.new_empty(volume.shape[0], *counts, channels // head_dim, head_dim, head_dim + 1)
    for slab in walk:
        hidden = _hidden(slab.matrices(volume), slab, first, mask)[1]
        grams = [head_blocks(group.mT @ group, heads) for group in hidden.split(heads * head_dim, -1)]
        row_sums = hidden.sum(1).unflatten(-1, (-1, head_dim))
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
