"""The NMF branch of rank 1 in two passes over the volume, which read its blocks in place.

The first pass sums the Gram matrices of the hidden layer H of every block; the second applies the averaged projection P
of the block and the last linear layer W, b: x + H P Wᵀ + b (formulas in ``gram`` and ``cpu``). Between them P follows
from the sums (``triton_windows``). Both passes compute H of a tile from x, and so do the two passes backward; only x
and per-window results are kept for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from factorizer_nnunet.network.ops.launch import like_first, num_programs, operator, padded, wrap_triton
from factorizer_nnunet.network.ops.mixer.block_geometry import Geometry, geometry, membership, unpacked
from factorizer_nnunet.network.ops.mixer.gram import shift_shares
from factorizer_nnunet.network.ops.mixer.reference import MixerLayer
from factorizer_nnunet.network.ops.mixer.triton_kernels import (
    apply_projections,
    projection_gradient,
    sum_blocks,
    sums_gradient,
)
from factorizer_nnunet.network.ops.mixer.triton_windows import project_windows, project_windows_backward
from factorizer_nnunet.network.ops.norm.linear_fusion import FusableNorm, fold_scale_and_shift

MAX_CHANNELS = 64  # of x, for a block's matrices to stay in registers
_MAX_BLOCK_VOXELS = 64  # of a tile
_MAX_BACKWARD_BLOCK_VOXELS = 32  # where sums are accumulated
_MAX_PROGRAMS = 1056  # per case, where sums are accumulated: eight for each multiprocessor of a large GPU


def normed_mixer(x: Tensor, norm: FusableNorm, mixer: MixerLayer, dtype: torch.dtype, *, residual: bool) -> Tensor:
    """As ``reference.normed_mixer``, in half precision ``dtype``, for at most ``MAX_CHANNELS`` channels of x.

    The settings have ``supports_block_gram``.
    """
    x = x.to(dtype)
    scale, shift, eps = fold_scale_and_shift(norm, x)
    families = mixer.families(x.shape[1:-1])
    weights = (mixer.in_proj.weight, mixer.out_proj.weight)
    result = None if residual else torch.zeros_like(x)
    for number, (family, share) in enumerate(zip(families, shift_shares(families), strict=True)):
        packed = geometry(x.shape[1:-1], family).packed()
        bias = None if number else mixer.out_proj.bias
        result, *_ = _add_family(
            x, result, scale, shift, *weights, bias, packed, mixer.head_dim, mixer.nmf.num_iters, share, eps
        )
    assert result is not None  # a grid has at least one family of shifts
    return result


def _fake_add_family(
    x: Tensor,
    residual: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    in_weight: Tensor,
    out_weight: Tensor,
    bias: Tensor | None,
    packed: Sequence[int],
    head_dim: int,
    num_iters: int,
    share: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    windows, size = unpacked(tuple(packed)).num_windows, (x.shape[-1] // head_dim, head_dim)
    sums = x.new_empty((x.shape[0], windows, *size, head_dim + 1), dtype=torch.float32)
    return (
        like_first(x),
        sums,
        sums.new_empty(sums.shape[:2] + size + size[1:]),
    )


@operator("residual_mixer", _fake_add_family)
def _add_family(
    x: Tensor,
    residual: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    in_weight: Tensor,
    out_weight: Tensor,
    bias: Tensor | None,
    packed: Sequence[int],
    head_dim: int,
    num_iters: int,
    share: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """residual (or x) + share · H P Wᵀ + b of one family, and the sums and projections of its windows.

    scale, shift, eps: from ``fold_scale_and_shift``; in_weight, out_weight: (C, C); bias: (C,); packed: a ``Geometry``.
    """
    x = x.contiguous()
    residual = x if residual is None else residual.contiguous()
    blocks = unpacked(tuple(packed))
    members = membership(blocks, x.device)
    channels = x.shape[-1]
    block_voxels, num_warps = _block_voxels(blocks, _MAX_BLOCK_VOXELS), 1 if channels <= 32 else 4
    grid = (blocks.num_blocks, len(x))
    sums = x.new_empty((len(x), blocks.num_blocks, channels // head_dim, head_dim, head_dim + 1), dtype=torch.float32)
    norm = (scale.contiguous(), shift.contiguous())
    wrap_triton(sum_blocks)[grid](
        x, sums, *norm, in_weight, channels, head_dim, blocks.num_blocks, eps, *blocks.kernel_arguments(), eps >= 0,
        block_voxels, padded(channels), num_warps=num_warps,
    )  # fmt: skip
    window_sums, projections = project_windows(sums, members, num_iters)
    y = torch.empty_like(x)
    wrap_triton(apply_projections)[grid](
        x, residual, y, projections, members.windows, *norm, in_weight, out_weight,
        out_weight if bias is None else bias, share, channels, head_dim, blocks.num_blocks, projections.shape[1],
        members.num_shifts, eps, *blocks.kernel_arguments(), eps >= 0, bias is not None, block_voxels, padded(channels),
        num_warps=num_warps,
    )  # fmt: skip
    return y, window_sums, projections


def _fake_add_family_backward(grad: Tensor, x: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    channels = x.shape[-1]
    sums = x.new_empty((x.shape[0], channels * (3 + 2 * channels)), dtype=torch.float32)
    return like_first(x), sums


@operator("residual_mixer_backward", _fake_add_family_backward)
def _add_family_backward(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    in_weight: Tensor,
    out_weight: Tensor,
    window_sums: Tensor,
    projections: Tensor,
    packed: Sequence[int],
    head_dim: int,
    num_iters: int,
    share: float,
    eps: float,
    is_residual: bool,
) -> tuple[Tensor, Tensor]:
    """Gradient of x; and those of scale, shift, bias, in_weight and out_weight for each case, (B, 3 C + 2 C²).

    With ``is_residual``, x is also the residual.
    """
    x, grad = x.contiguous(), grad.contiguous()
    blocks = unpacked(tuple(packed))
    members = membership(blocks, x.device)
    channels = x.shape[-1]
    block_voxels, num_warps = _block_voxels(blocks, _MAX_BACKWARD_BLOCK_VOXELS), 2 if channels <= 32 else 4
    grid = (num_programs(blocks.num_blocks, _MAX_PROGRAMS), len(x))
    grad_x = torch.empty_like(x)
    grad_projections = x.new_empty((len(x), blocks.num_blocks, *projections.shape[2:]), dtype=torch.float32)
    partial = x.new_empty((len(x), grid[0], channels * (3 + 2 * channels)), dtype=torch.float32)
    norm = (scale.contiguous(), shift.contiguous())
    sizes = (
        channels, head_dim, blocks.num_blocks, projections.shape[1], members.num_shifts, eps,
        *blocks.kernel_arguments(), eps >= 0,
    )  # fmt: skip
    wrap_triton(projection_gradient)[grid](
        x, grad, grad_x, projections, members.windows, grad_projections, partial, *norm, in_weight, out_weight, share,
        *sizes, is_residual, block_voxels, padded(channels), num_warps=num_warps,
    )  # fmt: skip
    grad_sums = project_windows_backward(grad_projections, window_sums, members, num_iters)
    wrap_triton(sums_gradient)[grid](
        x, grad_sums, members.windows, grad_x, partial, *norm, in_weight, *sizes, block_voxels, padded(channels),
        num_warps=num_warps,
    )  # fmt: skip
    return grad_x, partial.sum(1)


def _block_voxels(blocks: Geometry, limit: int) -> int:
    return min(limit, padded(blocks.block_voxels))


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    x, residual, scale, shift, in_weight, out_weight, bias, *settings = inputs
    ctx.save_for_backward(x, scale, shift, in_weight, out_weight, *output[1:])
    ctx.settings = tuple(settings)
    ctx.is_residual, ctx.has_bias = residual is None, bias is not None
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, sums = _add_family_backward(grad, *ctx.saved_tensors, *ctx.settings, ctx.is_residual)
    channels, eps = grad_x.shape[-1], ctx.settings[-1]
    per_case = sums[:, : 2 * channels].unflatten(1, (2, channels))
    if eps >= 0:  # a layer norm has the same scale and shift for all cases
        per_case = per_case.sum(0, keepdim=True)
    bias, matrices = sums.sum(0)[2 * channels :].split((channels, 2 * channels**2))
    in_weight, out_weight = matrices.unflatten(0, (2, channels, channels))
    tensors = (per_case[:, 0], per_case[:, 1], in_weight, out_weight, bias if ctx.has_bias else None)
    return grad_x, None if ctx.is_residual else grad, *tensors, None, None, None, None, None


_add_family.differentiable(_backward, _setup_context)
