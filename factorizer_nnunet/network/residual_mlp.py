"""x + MLP(norm(x)) on the CPU in slices of voxels that fit the cache, instead of layer by layer over the volume.

Layer by layer, this chain reads and writes the volume some ten times and keeps six to eight copies of it for the
backward pass. It acts on single voxels (but for the statistics of an instance norm), so here a slice goes through all
of it at once, only x is kept, and the backward pass computes a slice's hidden layer again. At 64×64×64 voxels of 32
channels (2 cores, float32) a training step of it takes half of the time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from factorizer_nnunet.network.norm_linear_fusion import NormAndLinear, fold, goes_in_parts, rows, slices

_LEAST_BYTES = 2**22  # of the hidden layer of the volume: what is smaller stays in the cache anyway


def can_be_sliced(x: Tensor, norm: nn.Module, hidden: int) -> bool:
    """Whether slices are implemented for x, and pay: for large volumes."""
    volume = x.numel() // x.shape[-1] * hidden * x.element_size()
    return goes_in_parts(x, norm) and volume >= _LEAST_BYTES


def residual_mlp(x: Tensor, norm: nn.Module, expand: nn.Linear, contract: nn.Linear, overwrite: bool = False) -> Tensor:
    """x + contract(gelu(expand(norm(x)))) for an instance or layer norm; x: (B, *spatial, C), same shape out.

    With ``overwrite``, only for inference, the result takes the place of x: a new volume costs more than its values.
    """
    x = x.contiguous()
    first = fold(norm, x, expand.weight, expand.bias)
    if overwrite:
        return _add_mlp(x, contract.weight, contract.bias, first, out=x)
    return _ResidualMLP.apply(x, contract.weight, contract.bias, *first)


def _add_mlp(x: Tensor, second: Tensor, second_bias: Tensor, first: NormAndLinear, out: Tensor) -> Tensor:
    for case, part in slices(x, second.shape[1]):
        voxels, target = rows(x, case, part), rows(out, case, part)
        hidden = first.linear(first.norm(voxels, case))
        torch.addmm(voxels, F.gelu(hidden), second.mT, out=target)
        target += second_bias
    return out


class _ResidualMLP(torch.autograd.Function):
    """``second``: (C, H); ``first``: a ``NormAndLinear``."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, second: Tensor, second_bias: Tensor, *first: Tensor | float | None
    ) -> Tensor:
        first = NormAndLinear(*first)
        ctx.save_for_backward(x, second, *first[:-1])
        ctx.eps = first.eps
        return _add_mlp(x, second, second_bias, first, torch.empty_like(x, memory_format=torch.contiguous_format))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, second, *saved = ctx.saved_tensors
        first = NormAndLinear(*saved, ctx.eps)
        grad = grad.contiguous()
        grad_x, grad_second, grad_first = torch.empty_like(grad), torch.zeros_like(second), first.zeros()
        for case, part in slices(x, second.shape[1]):
            above = rows(grad, case, part)
            normed = first.norm(rows(x, case, part), case)
            hidden = first.linear(normed)
            grad_second.addmm_(above.mT, F.gelu(hidden))
            below = torch.ops.aten.gelu_backward(above @ second, hidden)
            first.backward(grad_first, normed, below, above, out=rows(grad_x, case, part))
        return grad_x, grad_second, grad.flatten(0, -2).sum(0), *grad_first
