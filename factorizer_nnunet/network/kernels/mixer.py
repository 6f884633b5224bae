"""x + out_proj(NMF(relu(in_proj(norm(x))))) of rank 1 in two walks over the volume, its blocks read where they lie.

The first walk sums the Gram matrices of the hidden layer H of every block, the second applies the averaged projection
P of the block and the last linear layer W, b: x + H P Wᵀ + b (formulas in ``gram`` and ``residual_mixer``). Between
them P follows from the sums (``window_projections``). Both form H of a tile from x, and so do the two walks of the
backward pass; only x and what belongs to windows is kept for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from factorizer_nnunet.network.gram import weights
from factorizer_nnunet.network.kernels.blocks import Geometry, geometry, unpacked
from factorizer_nnunet.network.kernels.choice import padded, programs
from factorizer_nnunet.network.kernels.mixer_kernels import apply, gradient_of_apply, gradient_of_sums, sum_blocks
from factorizer_nnunet.network.kernels.operators import differentiable, operator
from factorizer_nnunet.network.kernels.window_projections import (
    membership,
    project_windows,
    project_windows_backward,
)
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.norm_linear_fusion import fold_scale_and_shift

MOST_CHANNELS = 64  # of x, for a block's matrices to stay in registers
_MOST_VOXELS = 64  # of a tile
_BACKWARD_VOXELS = 32  # likewise, where sums are kept
_PROGRAMS = 1056  # per case, that share the blocks where sums are kept: eight for each processor of a large GPU


def residual_mixer(x: Tensor, norm: nn.Module, mixer: NMFMixer, dtype: torch.dtype) -> Tensor:
    """x + mixer(norm(x)) for an instance or layer norm, in half precision ``dtype``; a mixer that ``goes_by_blocks``.

    x: (B, *spatial, C) with at most ``MOST_CHANNELS`` channels; same shape out.
    """
    x = x.to(dtype)
    scale, shift, eps = fold_scale_and_shift(norm, x)
    families = mixer.families(x.shape[1:-1])
    above, bias = None, mixer.out_proj.bias
    for family, share in zip(families, weights(families), strict=True):
        where = geometry(x.shape[1:-1], family).packed()
        weight = (scale, shift, mixer.in_proj.weight, mixer.out_proj.weight, bias)
        above, *_ = _mix(x, above, *weight, where, mixer.head_dim, mixer.nmf.num_iters, share, eps)
        bias = None
    return above


def _like_mix(x, above, scale, shift, first, last, bias, where, head_dim, num_iters, share, eps):
    windows, size = unpacked(tuple(where)).windows, (x.shape[-1] // head_dim, head_dim)
    sums = x.new_empty((x.shape[0], windows, *size, head_dim + 1), dtype=torch.float32)
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        sums,
        sums.new_empty(sums.shape[:2] + size + size[1:]),
    )


@operator("residual_mixer", _like_mix)
def _mix(
    x: Tensor,
    above: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    first: Tensor,
    last: Tensor,
    bias: Tensor | None,
    where: Sequence[int],
    head_dim: int,
    num_iters: int,
    share: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """above (or x) + share · H P Wᵀ + b of one family, and the sums and projections of its windows.

    scale, shift, eps: as ``folding.fold_scale_and_shift`` gives them; first, last: (C, C); bias: (C,); where: a packed
    ``Geometry``.
    """
    x = x.contiguous()
    above = x if above is None else above.contiguous()
    place = unpacked(tuple(where))
    held = membership(place, x.device)
    channels = x.shape[-1]
    settings, voxels = _forward_settings(channels), _voxels(place, _MOST_VOXELS)
    sums = x.new_empty((len(x), place.blocks, channels // head_dim, head_dim, head_dim + 1), dtype=torch.float32)
    norm = (scale.contiguous(), shift.contiguous())
    sum_blocks[(place.blocks, len(x))](
        x, sums, *norm, first, channels, head_dim, place.blocks, eps, *place.for_places(), eps >= 0, voxels,
        padded(channels), **settings,
    )  # fmt: skip
    window_sums, projections = project_windows(sums, held, num_iters)
    y = torch.empty_like(x)
    apply[(place.blocks, len(x))](
        x, above, y, projections, held.windows, *norm, first, last, last if bias is None else bias, share, channels,
        head_dim, place.blocks, projections.shape[1], held.shifts, eps, *place.for_places(), eps >= 0,
        bias is not None, voxels, padded(channels), **settings,
    )  # fmt: skip
    return y, window_sums, projections


def _like_mix_backward(grad, x, *_: object) -> tuple[Tensor, Tensor]:
    channels = x.shape[-1]
    packed = x.new_empty((x.shape[0], channels * (3 + 2 * channels)), dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.contiguous_format), packed


@operator("residual_mixer_backward", _like_mix_backward)
def _mix_backward(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    first: Tensor,
    last: Tensor,
    window_sums: Tensor,
    projections: Tensor,
    where: Sequence[int],
    head_dim: int,
    num_iters: int,
    share: float,
    eps: float,
    passes_by: bool,
) -> tuple[Tensor, Tensor]:
    """Gradient of x, and of scale, shift, bias, first and last in a row for each case, (B, 3 C + 2 C²)."""
    x, grad = x.contiguous(), grad.contiguous()
    place = unpacked(tuple(where))
    held = membership(place, x.device)
    channels = x.shape[-1]
    settings, voxels = _backward_settings(channels), _voxels(place, _BACKWARD_VOXELS)
    count = programs(place.blocks, _PROGRAMS)
    grad_x = torch.empty_like(x)
    grad_projections = x.new_empty((len(x), place.blocks, *projections.shape[2:]), dtype=torch.float32)
    partial = x.new_empty((len(x), count, channels * (3 + 2 * channels)), dtype=torch.float32)
    norm = (scale.contiguous(), shift.contiguous())
    sizes = (channels, head_dim, place.blocks, projections.shape[1], held.shifts, eps, *place.for_places(), eps >= 0)
    gradient_of_apply[(count, len(x))](
        x, grad, grad_x, projections, held.windows, grad_projections, partial, *norm, first, last, share, *sizes,
        passes_by, voxels, padded(channels), **settings,
    )  # fmt: skip
    grad_sums = project_windows_backward(grad_projections, window_sums, held, num_iters)
    gradient_of_sums[(count, len(x))](
        x, grad_sums, held.windows, grad_x, partial, *norm, first, *sizes, voxels, padded(channels), **settings
    )
    return grad_x, partial.sum(1)


def _voxels(place: Geometry, most: int) -> int:
    return min(most, padded(place.block_voxels))


def _forward_settings(channels: int) -> dict[str, int]:
    return {"num_warps": 1 if channels <= 32 else 4}


def _backward_settings(channels: int) -> dict[str, int]:
    return {"num_warps": 2 if channels <= 32 else 4}


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    x, above, scale, shift, first, last, bias, *ctx.settings = inputs
    ctx.save_for_backward(x, scale, shift, first, last, *output[1:])
    ctx.first_family, ctx.has_bias = above is None, bias is not None
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, packed = _mix_backward(grad, *ctx.saved_tensors, *ctx.settings, ctx.first_family)
    channels = grad_x.shape[-1]
    per_case = packed[:, : 2 * channels].unflatten(1, (2, channels))
    if ctx.settings[-1] >= 0:  # a layer norm has the same scale and shift for all cases
        per_case = per_case.sum(0, keepdim=True)
    bias, matrices = packed.sum(0)[2 * channels :].split((channels, 2 * channels**2))
    first, last = matrices.unflatten(0, (2, channels, channels))
    of_tensors = (per_case[:, 0], per_case[:, 1], first, last, bias if ctx.has_bias else None)
    return grad_x, None if ctx.first_family else grad, *of_tensors, None, None, None, None, None


differentiable(_mix, _backward, _keep)
