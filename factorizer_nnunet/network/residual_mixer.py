"""x + out_proj(NMF(relu(in_proj(norm(x))))) on the CPU in slabs of blocks that fit the cache; rank 1, constant start.

As ``residual_mlp``, and for the same reason. Two walks over the volume forward: the first projects a slab, cuts it into
blocks, keeps them and sums their Gram matrices; the projections P of all windows follow from these sums
(``gram``); the second applies them, projects back and adds x. Two walks backward: the first forms dL/dP, autograd
leads it through P to the sums, the second forms dL/dx. Only x and the blocks are kept, and P is computed again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from factorizer_nnunet.network.folding import NormAndLinear, fold, goes_in_parts
from factorizer_nnunet.network.gram import (
    average_projection,
    block_diagonal,
    head_blocks,
    heads_per_group,
)
from factorizer_nnunet.network.layout import from_blocks, to_blocks
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.windows import AxisGrid, WindowGrid

_SLAB_BYTES = 2**19
_LEAST_BYTES = 2**24  # of the volume: smaller ones gain nothing


@dataclass(frozen=True)
class Slab:
    """Whole blocks of a case: where they lie in the volume, and among the blocks."""

    case: int
    voxels: tuple[slice, ...]  # along all axes but the last one, which is whole
    blocks: tuple[slice, ...]
    axes: tuple[AxisGrid, ...]

    def of(self, volume: Tensor) -> Tensor:
        """The slab's voxels of (B, *spatial, C), a view."""
        return volume[(self.case, *self.voxels)]

    def among(self, blocks: Tensor) -> Tensor:
        """The slab's blocks of (B, *blocks, …), a view."""
        return blocks[(self.case, *self.blocks)]


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
    """Whether slabs are implemented for x and the mixer, and pay: for large volumes."""
    return goes_in_parts(x, norm) and x.nbytes >= _LEAST_BYTES and mixer.shares_blocks(mixer.grid(x.shape[1:-1]))


def residual_mixer(x: Tensor, norm: nn.Module, mixer: NMFMixer) -> Tensor:
    """x + mixer(norm(x)) for an instance or layer norm; a mixer that ``shares_blocks``. x: (B, *spatial, C), as out."""
    x, weight = x.contiguous(), mixer.in_proj.weight
    first = fold(norm, x, weight, weight.new_zeros(len(weight)))
    settings = (mixer.grid(x.shape[1:-1]), mixer.head_dim, mixer.nmf.num_iters)
    return _ResidualMixer.apply(x, *settings, mixer.out_proj.weight, mixer.out_proj.bias, *first)


class _ResidualMixer(torch.autograd.Function):
    """``last``: (C, C); ``first``: a ``NormAndLinear``."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        grid: WindowGrid,
        head_dim: int,
        num_iters: int,
        last: Tensor,
        last_bias: Tensor,
        *first: Tensor | float | None,
    ) -> Tensor:
        first = NormAndLinear(*first)
        heads = heads_per_group(x.shape[-1], head_dim)
        counts = [axis.num_blocks for axis in grid.axes]
        voxels, width = math.prod(axis.block for axis in grid.axes), heads * head_dim
        groups = x.shape[-1] // width
        blocks = x.new_empty(x.shape[0], *counts, groups, voxels, width)
        sums = x.new_empty(x.shape[0], *counts, groups * heads, head_dim, head_dim + 1)
        walk = slabs(x, grid)
        for slab in walk:
            hidden = first.linear(first.norm(slab.of(x).reshape(-1, x.shape[-1]), slab.case)).relu_()
            mine = slab.among(blocks)
            mine.copy_(to_blocks(hidden.reshape(1, *slab.of(x).shape), slab.axes, width)[0])
            target = slab.among(sums)
            target[..., :-1] = head_blocks(mine.mT @ mine, heads).flatten(-4, -3)
            target[..., -1] = mine.sum(-2).unflatten(-1, (heads, head_dim)).flatten(-3, -2)
        projection = average_projection(sums, grid, num_iters).unflatten(-3, (groups, heads))
        result = torch.empty_like(x)
        for slab in walk:
            mixed = slab.among(blocks) @ block_diagonal(slab.among(projection))
            flat = from_blocks(mixed[None], slab.axes).reshape(-1, x.shape[-1])
            own = slab.of(x)
            torch.add(own, torch.addmm(last_bias, flat, last.mT).reshape(own.shape), out=slab.of(result))
        ctx.save_for_backward(x, last, blocks, sums, *first[:-1])
        ctx.settings = (grid, heads, num_iters, first.eps)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, last, blocks, sums, *saved = ctx.saved_tensors
        grid, heads, num_iters, eps = ctx.settings
        first = NormAndLinear(*saved, eps)
        grad = grad.contiguous()
        channels, (groups, _, width) = x.shape[-1], blocks.shape[-3:]
        walk = slabs(x, grid)
        with torch.enable_grad():
            sums = sums.detach().requires_grad_()
            projection = average_projection(sums, grid, num_iters)
        split = projection.detach().unflatten(-3, (groups, heads))
        grad_projection = torch.empty_like(split)
        grad_last = torch.zeros_like(last)
        for slab in walk:
            above, mine = slab.of(grad).reshape(-1, channels), slab.among(blocks)
            mixed = from_blocks((mine @ block_diagonal(slab.among(split)))[None], slab.axes).reshape(-1, channels)
            grad_last.addmm_(above.mT, mixed)
            below = to_blocks((above @ last).reshape(1, *slab.of(grad).shape), slab.axes, width)[0]
            slab.among(grad_projection).copy_(head_blocks(mine.mT @ below, heads))
        (grad_sums,) = torch.autograd.grad(projection, sums, grad_projection.flatten(-4, -3))
        grad_sums = grad_sums.unflatten(-3, (groups, heads))
        grad_x, grad_first = torch.empty_like(x), first.zeros()
        for slab in walk:
            above, mine, own = slab.of(grad).reshape(-1, channels), slab.among(blocks), slab.of(x)
            below = to_blocks((above @ last).reshape(1, *own.shape), slab.axes, width)[0]
            gram, row_sum = slab.among(grad_sums)[..., :-1], slab.among(grad_sums)[..., -1]
            through = below @ block_diagonal(slab.among(split)).mT + mine @ block_diagonal(gram + gram.mT)
            through += row_sum.flatten(-2)[..., None, :]
            hidden = from_blocks((through * (mine > 0))[None], slab.axes).reshape(-1, channels)
            part = first.backward(grad_first, first.norm(own.reshape(-1, channels), slab.case), hidden, above)
            slab.of(grad_x).copy_(part.reshape(own.shape))
        return grad_x, None, None, None, grad_last, grad.flatten(0, -2).sum(0), *grad_first
