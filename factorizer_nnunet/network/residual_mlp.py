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

from factorizer_nnunet.network.folding import fold, goes_in_parts, of_case

_SLICE_BYTES = 2**19  # of the hidden layer of a slice: it, its GELU, input and output then fit a core's cache
_LEAST_BYTES = 2**22  # of the hidden layer of the volume: what is smaller stays in the cache anyway


def can_be_sliced(x: Tensor, norm: nn.Module, hidden: int) -> bool:
    """Whether slices are implemented for x, and pay: for large volumes."""
    volume = x.numel() // x.shape[-1] * hidden * x.element_size()
    return goes_in_parts(x, norm) and volume >= _LEAST_BYTES


def residual_mlp(x: Tensor, norm: nn.Module, expand: nn.Linear, contract: nn.Linear) -> Tensor:
    """x + contract(gelu(expand(norm(x)))) for an instance or layer norm; x: (B, *spatial, C), same shape out."""
    x = x.contiguous()
    return _ResidualMLP.apply(x, *fold(norm, x, expand.weight, expand.bias), contract.weight, contract.bias)


class _ResidualMLP(torch.autograd.Function):
    """``scale`` to ``first_bias``: see ``folding.NormAndLinear``; ``second``: (C, H)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        eps: float | None,
        first: Tensor,
        first_bias: Tensor,
        second: Tensor,
        second_bias: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, shift, first, first_bias, second)
        ctx.eps = eps
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        for case, part in _slices(x, first):
            voxels, out = _rows(x, case, part), _rows(result, case, part)
            normed = voxels if eps is None else F.layer_norm(voxels, scale.shape, scale, shift, eps)
            hidden = torch.addmm(of_case(first_bias, case), normed, of_case(first, case).mT)
            torch.addmm(voxels, F.gelu(hidden), second.mT, out=out)
            out += second_bias
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, first, first_bias, second = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = torch.empty_like(grad)
        grad_first, grad_first_bias, grad_second = map(torch.zeros_like, (first, first_bias, second))
        grad_scale, grad_shift = (None, None) if scale is None else (torch.zeros_like(scale), torch.zeros_like(shift))
        for case, part in _slices(x, first):
            voxels, above, out = (_rows(tensor, case, part) for tensor in (x, grad, grad_x))
            matrix = of_case(first, case)
            normed, mean, rstd = voxels, None, None
            if scale is not None:
                normed, mean, rstd = torch.native_layer_norm(voxels, scale.shape, scale, shift, ctx.eps)
            hidden = torch.addmm(of_case(first_bias, case), normed, matrix.mT)
            grad_second.addmm_(above.mT, F.gelu(hidden))
            below = torch.ops.aten.gelu_backward(above @ second, hidden)
            of_case(grad_first, case).addmm_(below.mT, normed)
            of_case(grad_first_bias, case).add_(below.sum(0))
            if scale is None:
                torch.addmm(above, below, matrix, out=out)
                continue
            through, part_scale, part_shift = torch.ops.aten.native_layer_norm_backward(
                below @ matrix, voxels, scale.shape, mean, rstd, scale, shift, [True, True, True]
            )
            torch.add(through, above, out=out)
            grad_scale += part_scale
            grad_shift += part_shift
        grad_second_bias = grad.flatten(0, -2).sum(0)
        return grad_x, grad_scale, grad_shift, None, grad_first, grad_first_bias, grad_second, grad_second_bias


def _slices(x: Tensor, first: Tensor) -> list[tuple[int, slice]]:
    """Case and voxels of every slice."""
    voxels = x[0, ..., 0].numel()
    rows = max(64, _SLICE_BYTES // (first.shape[1] * x.element_size()))
    return [(case, slice(start, start + rows)) for case in range(x.shape[0]) for start in range(0, voxels, rows)]


def _rows(x: Tensor, case: int, part: slice) -> Tensor:
    """Voxels of a case as (n, C), a view of x."""
    return x[case].reshape(-1, x.shape[-1])[part]
