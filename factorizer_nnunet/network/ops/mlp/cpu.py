"""The residual MLP branch on the CPU in slices of voxels that fit the cache, instead of layer by layer.

Layer by layer, this chain reads and writes the volume some ten times and keeps six to eight copies of it for the
backward pass. It acts on single voxels (apart from the statistics of an instance norm), so here each slice goes through
all of it at once, only x is kept, and the backward pass computes a slice's hidden layer again. At 64×64×64 voxels of 32
channels (2 cores, float32) a training step takes half the time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from factorizer_nnunet.network.ops.autograd import Context
from factorizer_nnunet.network.ops.norm.linear_fusion import FusableNorm, NormAndLinear
from factorizer_nnunet.network.ops.slices import rows, slices


def residual_mlp(
    x: Tensor, norm: FusableNorm, expand: nn.Linear, contract: nn.Linear, overwrite: bool = False
) -> Tensor:
    """As ``reference.residual_mlp``.

    With ``overwrite``, only for inference, the result replaces x: allocating a volume costs more than computing it.
    """
    x = x.contiguous()
    norm_expand = NormAndLinear.fold(norm, x, expand.weight, expand.bias)
    if overwrite:
        return _add_mlp(x, contract.weight, contract.bias, norm_expand, out=x)
    return _ResidualMLP.apply(x, contract.weight, contract.bias, *norm_expand)


def _add_mlp(x: Tensor, weight: Tensor, bias: Tensor, norm_expand: NormAndLinear, out: Tensor) -> Tensor:
    """weight, bias: of ``contract``."""
    for case, part in slices(x, weight.shape[1]):
        voxels, target = rows(x, case, part), rows(out, case, part)
        hidden = norm_expand.linear(norm_expand.norm(voxels, case))
        torch.addmm(voxels, F.gelu(hidden), weight.mT, out=target)
        target += bias
    return out


class _MLPContext(Context):
    eps: float


class _ResidualMLP(torch.autograd.Function):
    """weight: (C, H) and bias: (C,) of ``contract``; the other arguments are the fields of a ``NormAndLinear``."""

    @staticmethod
    def forward(
        ctx: _MLPContext,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        expand_weight: Tensor,
        expand_bias: Tensor | None,
        scale: Tensor | None,
        shift: Tensor | None,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, expand_weight, expand_bias, scale, shift)
        ctx.eps = eps
        norm_expand = NormAndLinear(expand_weight, expand_bias, scale, shift, eps)
        return _add_mlp(x, weight, bias, norm_expand, torch.empty_like(x, memory_format=torch.contiguous_format))

    @staticmethod
    @once_differentiable
    def backward(ctx: _MLPContext, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, expand_weight, expand_bias, scale, shift = ctx.saved_tensors
        norm_expand = NormAndLinear(expand_weight, expand_bias, scale, shift, ctx.eps)
        grad = grad.contiguous()
        grad_x, grad_weight, sums = torch.empty_like(grad), torch.zeros_like(weight), norm_expand.zeros()
        for case, part in slices(x, weight.shape[1]):
            grad_y = rows(grad, case, part)
            voxels = norm_expand.norm(rows(x, case, part), case)
            hidden = norm_expand.linear(voxels)
            grad_weight.addmm_(grad_y.mT, F.gelu(hidden))
            grad_hidden = torch.ops.aten.gelu_backward(grad_y @ weight, hidden)
            norm_expand.backward(sums, voxels, grad_hidden, grad_y, out=rows(grad_x, case, part))
        return grad_x, grad_weight, grad.flatten(0, -2).sum(0), *sums[:-1], None
