"""x + MLP(norm(x)) on the CPU in slices of voxels that fit the cache, instead of layer by layer over the volume.

Layer by layer, this chain reads and writes the volume some ten times and keeps six to eight copies of it for the
backward pass. It acts on single voxels (but for the statistics of an instance norm), so here a slice goes through all
of it at once, only x is kept, and the backward pass computes a slice's hidden layer again. At 64×64×64 voxels of 32
channels (2 cores, float32) a training step of it takes half of the time.

The layer norm is computed with each slice. The instance norm, y = s x + t with s and t for each case and channel, is
folded into the first linear layer: W y + b = (W diag(s)) x + (W t + b).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from factorizer_nnunet.network.layers import InstanceNorm

_SLICE_BYTES = 2**19  # of the hidden layer of a slice: it, its GELU, input and output then fit a core's cache
_LEAST_BYTES = 2**22  # of the hidden layer of the volume: what is smaller stays in the cache anyway


def can_be_sliced(x: Tensor, norm: nn.Module, hidden: int) -> bool:
    """Whether slices pay and are implemented: on the CPU, in full precision, for large volumes, not while compiling."""
    return (
        x.device.type == "cpu"
        and isinstance(norm, InstanceNorm | nn.LayerNorm)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and x.numel() // x.shape[-1] * hidden * x.element_size() >= _LEAST_BYTES
    )


def residual_mlp(x: Tensor, norm: nn.Module, expand: nn.Linear, contract: nn.Linear) -> Tensor:
    """x + contract(gelu(expand(norm(x)))) for an instance or layer norm; x: (B, *spatial, C), same shape out."""
    x = x.contiguous()
    if isinstance(norm, nn.LayerNorm):
        first, first_bias = expand.weight[None], expand.bias[None]
        scale, shift, eps = norm.weight, norm.bias, norm.eps
    else:
        factor, offset = norm.scale_and_shift(x)
        first, first_bias = expand.weight * factor[:, None], expand.bias + offset @ expand.weight.mT
        scale, shift, eps = None, None, None
    return _ResidualMLP.apply(x, scale, shift, eps, first, first_bias, contract.weight, contract.bias)


class _ResidualMLP(torch.autograd.Function):
    """``scale``, ``shift``, ``eps``: of a layer norm, or None.

    ``first``: (1 or B, H, C) and ``first_bias``: (1 or B, H), for all cases or for each; ``second``: (C, H).
    """

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
            hidden = torch.addmm(_of_case(first_bias, case), normed, _of_case(first, case).mT)
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
            matrix = _of_case(first, case)
            normed, mean, rstd = voxels, None, None
            if scale is not None:
                normed, mean, rstd = torch.native_layer_norm(voxels, scale.shape, scale, shift, ctx.eps)
            hidden = torch.addmm(_of_case(first_bias, case), normed, matrix.mT)
            grad_second.addmm_(above.mT, F.gelu(hidden))
            below = torch.ops.aten.gelu_backward(above @ second, hidden)
            _of_case(grad_first, case).addmm_(below.mT, normed)
            _of_case(grad_first_bias, case).add_(below.sum(0))
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


def _of_case(values: Tensor, case: int) -> Tensor:
    """What belongs to a case; a single entry belongs to all."""
    return values[case if values.shape[0] > 1 else 0]
