"""x + out_proj(NMF(relu(in_proj(norm(x))))) of rank 1 in two walks over the volume, its blocks read where they lie.

The first walk sums the Gram matrices of the hidden layer H of every block, the second applies the averaged projection
P of the block and the last linear layer W, b: x + H P Wᵀ + b (formulas in ``gram`` and ``residual_mixer``). Between
them P follows from the sums (``window_projections``). Both form H of a tile from x, and so do the two walks of the
backward pass; only x and what belongs to windows is kept for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor, nn
from triton import language as tl

from factorizer_nnunet.network.folding import fold_scale_and_shift
from factorizer_nnunet.network.gram import weights
from factorizer_nnunet.network.kernels.blocks import (
    Geometry,
    geometry,
    last_of_windows,
    of_windows,
    per_head,
    places,
    unpacked,
)
from factorizer_nnunet.network.kernels.choice import padded, programs
from factorizer_nnunet.network.kernels.operators import differentiable, operator
from factorizer_nnunet.network.kernels.tiles import normalise, through_norm
from factorizer_nnunet.network.kernels.window_projections import (
    membership,
    project_windows,
    project_windows_backward,
)
from factorizer_nnunet.network.mixer import NMFMixer

MOST_CHANNELS = 64  # of x, for a block's matrices to stay in registers
_MOST_VOXELS = 64  # of a tile
_BACKWARD_VOXELS = 32  # likewise, where sums are kept
_PROGRAMS = 1056  # per case, that share the blocks where sums are kept: eight for each processor of a large GPU


@triton.jit
def _hidden(given, inside, exists, factor, offset, first, channels, eps, layer: tl.constexpr):
    """H of a tile, 0 outside the volume, and what its backward pass needs; first: (C, C), of ``in_proj``."""
    base, rstd = normalise(given.to(tl.float32), exists, channels, eps, layer)
    normed = (base * factor[None, :] + offset[None, :]).to(given.dtype)
    hidden = tl.maximum(tl.dot(normed, tl.trans(first)), 0.0)
    return tl.where(inside[:, None], hidden, 0.0).to(given.dtype), normed, base, rstd


@triton.jit
def _sum_blocks(
    x,
    sums,
    scale,
    shift,
    first,
    channels,
    head_dim,
    blocks,
    eps,
    d_size, h_size, w_size, d_start, h_start, w_start, d_turn, h_turn, w_turn, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    layer: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """sums: (cases, blocks, heads, d, d + 1)."""
    block, case = tl.program_id(0), tl.program_id(1)
    cols = tl.arange(0, CHANNELS)
    exists = cols < channels
    x += case.to(tl.int64) * d_size * h_size * w_size * channels
    of_norm = cols if layer else case * channels + cols
    factor = tl.load(scale + of_norm, exists, 0.0)
    offset = tl.load(shift + of_norm, exists, 0.0)
    square = exists[:, None] & exists[None, :]
    weight = tl.load(first + cols[:, None] * channels + cols[None, :], square, 0.0).to(x.dtype.element_ty)
    gram = tl.zeros([CHANNELS, CHANNELS], tl.float32)
    total = tl.zeros([CHANNELS], tl.float32)
    for part in range(0, d_block * h_block * w_block, VOXELS):
        voxels, inside = places(
            part + tl.arange(0, VOXELS), block, d_size, h_size, w_size, d_start, h_start, w_start,
            d_turn, h_turn, w_turn, h_count, w_count, d_block, h_block, w_block,
        )  # fmt: skip
        offsets = voxels[:, None] * channels + cols[None, :]
        given = tl.load(x + offsets, inside[:, None] & exists[None, :], 0.0)
        hidden, normed, base, rstd = _hidden(given, inside, exists, factor, offset, weight, channels, eps, layer)
        gram = tl.dot(tl.trans(hidden), hidden, gram)
        total += tl.sum(hidden.to(tl.float32), 0)
    place = sums + (case * blocks + block).to(tl.int64) * channels * (head_dim + 1)
    at, same = per_head(place, head_dim + 1, cols, exists, head_dim)
    tl.store(at, gram, same)
    tl.store(place + cols * (head_dim + 1) + head_dim, total, exists)


@triton.jit
def _gradient_of_sums(
    x,
    grad_sums,
    table,
    grad_x,
    partial,
    scale,
    shift,
    first,
    channels,
    head_dim,
    blocks,
    windows,
    shifts,
    eps,
    d_size, h_size, w_size, d_start, h_start, w_start, d_turn, h_turn, w_turn, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    layer: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Adds to grad_x and to ``partial``, as ``_gradient_of_apply`` left them; grad_sums: of windows."""
    case = tl.program_id(1)
    cols = tl.arange(0, CHANNELS)
    exists = cols < channels
    volume = case.to(tl.int64) * d_size * h_size * w_size * channels
    x, grad_x = x + volume, grad_x + volume
    of_norm = cols if layer else case * channels + cols
    factor = tl.load(scale + of_norm, exists, 0.0)
    offset = tl.load(shift + of_norm, exists, 0.0)
    square = exists[:, None] & exists[None, :]
    entries = cols[:, None] * channels + cols[None, :]
    weight = tl.load(first + entries, square, 0.0).to(x.dtype.element_ty)
    row = partial + (case * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * channels * (3 + 2 * channels)
    of_scale = tl.load(row + cols, exists, 0.0)
    of_shift = tl.load(row + channels + cols, exists, 0.0)
    of_weight = tl.load(row + 3 * channels + entries, square, 0.0)
    grad_sums += case.to(tl.int64) * windows * channels * (head_dim + 1)
    stride = channels * (head_dim + 1)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        slopes = of_windows(grad_sums, table, block, blocks, stride, head_dim + 1, shifts, cols, exists, head_dim)
        slopes += tl.trans(slopes)
        total = last_of_windows(grad_sums, table, block, blocks, stride, head_dim + 1, shifts, cols, exists, head_dim)
        for part in range(0, d_block * h_block * w_block, VOXELS):
            voxels, inside = places(
                part + tl.arange(0, VOXELS), block, d_size, h_size, w_size, d_start, h_start, w_start,
                d_turn, h_turn, w_turn, h_count, w_count, d_block, h_block, w_block,
            )  # fmt: skip
            offsets = voxels[:, None] * channels + cols[None, :]
            both = inside[:, None] & exists[None, :]
            given = tl.load(x + offsets, both, 0.0)
            hidden, normed, base, rstd = _hidden(given, inside, exists, factor, offset, weight, channels, eps, layer)
            # Gradients of Gram matrices have the range of float32; what they give of H has that of other gradients.
            through = tl.dot(hidden.to(tl.float32), slopes) + total[None, :]
            through = tl.where(hidden > 0, through, 0.0).to(given.dtype)
            of_weight = tl.dot(tl.trans(through), normed, of_weight)
            before = tl.dot(through, weight)
            of_scale += tl.sum(before * base, 0)
            of_shift += tl.sum(before, 0)
            result = through_norm(before, base, rstd, factor, channels, layer)
            result += tl.load(grad_x + offsets, both, 0.0).to(tl.float32)
            tl.store(grad_x + offsets, result.to(grad_x.dtype.element_ty), both)
    tl.store(row + cols, of_scale, exists)
    tl.store(row + channels + cols, of_shift, exists)
    tl.store(row + 3 * channels + entries, of_weight, square)


@triton.jit
def _apply(
    x,
    above,
    y,
    projections,
    table,
    scale,
    shift,
    first,
    last,
    bias,
    share,
    channels,
    head_dim,
    blocks,
    windows,
    shifts,
    eps,
    d_size, h_size, w_size, d_start, h_start, w_start, d_turn, h_turn, w_turn, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    layer: tl.constexpr,
    has_bias: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """y = above + share · H P Wᵀ + b; projections: (cases, windows, heads, d, d)."""
    block, case = tl.program_id(0), tl.program_id(1)
    cols = tl.arange(0, CHANNELS)
    exists = cols < channels
    volume = case.to(tl.int64) * d_size * h_size * w_size * channels
    x, above, y = x + volume, above + volume, y + volume
    of_norm = cols if layer else case * channels + cols
    factor = tl.load(scale + of_norm, exists, 0.0)
    offset = tl.load(shift + of_norm, exists, 0.0)
    square = exists[:, None] & exists[None, :]
    weight = tl.load(first + cols[:, None] * channels + cols[None, :], square, 0.0).to(x.dtype.element_ty)
    back = tl.load(last + cols[:, None] * channels + cols[None, :], square, 0.0).to(x.dtype.element_ty)
    projections += case.to(tl.int64) * windows * channels * head_dim
    matrix = of_windows(
        projections, table, block, blocks, channels * head_dim, head_dim, shifts, cols, exists, head_dim
    )
    matrix = (matrix / shifts).to(weight.dtype)
    constant = tl.zeros([CHANNELS], tl.float32)
    if has_bias:
        constant += tl.load(bias + cols, exists, 0.0)
    for part in range(0, d_block * h_block * w_block, VOXELS):
        voxels, inside = places(
            part + tl.arange(0, VOXELS), block, d_size, h_size, w_size, d_start, h_start, w_start,
            d_turn, h_turn, w_turn, h_count, w_count, d_block, h_block, w_block,
        )  # fmt: skip
        offsets = voxels[:, None] * channels + cols[None, :]
        both = inside[:, None] & exists[None, :]
        given = tl.load(x + offsets, both, 0.0)
        hidden, normed, base, rstd = _hidden(given, inside, exists, factor, offset, weight, channels, eps, layer)
        mixed = tl.dot(hidden, matrix).to(given.dtype)
        result = tl.load(above + offsets, both, 0.0).to(tl.float32) + constant[None, :]
        result += share * tl.dot(mixed, tl.trans(back))
        tl.store(y + offsets, result.to(y.dtype.element_ty), both)


@triton.jit
def _gradient_of_apply(
    x,
    grad,
    grad_x,
    projections,
    table,
    grad_projections,
    partial,
    scale,
    shift,
    first,
    last,
    share,
    channels,
    head_dim,
    blocks,
    windows,
    shifts,
    eps,
    d_size, h_size, w_size, d_start, h_start, w_start, d_turn, h_turn, w_turn, h_count, w_count,
    d_block: tl.constexpr, h_block: tl.constexpr, w_block: tl.constexpr,
    layer: tl.constexpr,
    passes_by: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """grad_projections: (cases, blocks, heads, d, d), of the average over shifts.

    partial: (cases, programs, 3 C + 2 C²), gradients of scale, shift, bias, first and last. With ``passes_by`` the
    gradient also reaches x past the mixer.
    """
    case = tl.program_id(1)
    cols = tl.arange(0, CHANNELS)
    exists = cols < channels
    volume = case.to(tl.int64) * d_size * h_size * w_size * channels
    x, grad, grad_x = x + volume, grad + volume, grad_x + volume
    of_norm = cols if layer else case * channels + cols
    factor = tl.load(scale + of_norm, exists, 0.0)
    offset = tl.load(shift + of_norm, exists, 0.0)
    square = exists[:, None] & exists[None, :]
    weight = tl.load(first + cols[:, None] * channels + cols[None, :], square, 0.0).to(x.dtype.element_ty)
    back = tl.load(last + cols[:, None] * channels + cols[None, :], square, 0.0).to(x.dtype.element_ty)
    of_scale = tl.zeros([CHANNELS], tl.float32)
    of_shift = tl.zeros([CHANNELS], tl.float32)
    of_bias = tl.zeros([CHANNELS], tl.float32)
    of_weight = tl.zeros([CHANNELS, CHANNELS], tl.float32)
    of_back = tl.zeros([CHANNELS, CHANNELS], tl.float32)
    projections += case.to(tl.int64) * windows * channels * head_dim
    grad_projections += case.to(tl.int64) * blocks * channels * head_dim
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        matrix = of_windows(
            projections, table, block, blocks, channels * head_dim, head_dim, shifts, cols, exists, head_dim
        )
        matrix = (matrix / shifts).to(weight.dtype)
        of_matrix = tl.zeros([CHANNELS, CHANNELS], tl.float32)
        for part in range(0, d_block * h_block * w_block, VOXELS):
            voxels, inside = places(
                part + tl.arange(0, VOXELS), block, d_size, h_size, w_size, d_start, h_start, w_start,
                d_turn, h_turn, w_turn, h_count, w_count, d_block, h_block, w_block,
            )  # fmt: skip
            offsets = voxels[:, None] * channels + cols[None, :]
            both = inside[:, None] & exists[None, :]
            given = tl.load(x + offsets, both, 0.0)
            above = tl.load(grad + offsets, both, 0.0)
            hidden, normed, base, rstd = _hidden(given, inside, exists, factor, offset, weight, channels, eps, layer)
            mixed = tl.dot(hidden, matrix).to(given.dtype)
            of_back = tl.dot(tl.trans(above), mixed, of_back)
            of_bias += tl.sum(above.to(tl.float32), 0)
            through = (share * tl.dot(above, back)).to(given.dtype)
            of_matrix = tl.dot(tl.trans(hidden), through, of_matrix)
            through = tl.dot(through, tl.trans(matrix))
            through = tl.where(hidden > 0, through, 0.0).to(given.dtype)
            of_weight = tl.dot(tl.trans(through), normed, of_weight)
            before = tl.dot(through, weight)
            of_scale += tl.sum(before * base, 0)
            of_shift += tl.sum(before, 0)
            result = through_norm(before, base, rstd, factor, channels, layer)
            if passes_by:
                result += above.to(tl.float32)
            tl.store(grad_x + offsets, result.to(grad_x.dtype.element_ty), both)
        at, same = per_head(grad_projections + block * channels * head_dim, head_dim, cols, exists, head_dim)
        tl.store(at, of_matrix, same)
    row = partial + (case * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * channels * (3 + 2 * channels)
    tl.store(row + cols, of_scale, exists)
    tl.store(row + channels + cols, of_shift, exists)
    tl.store(row + 2 * channels + cols, of_bias, exists)
    entries = cols[:, None] * channels + cols[None, :]
    tl.store(row + 3 * channels + entries, of_weight, square)
    tl.store(row + (3 + channels) * channels + entries, share * of_back, square)


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
    _sum_blocks[(place.blocks, len(x))](
        x, sums, *norm, first, channels, head_dim, place.blocks, eps, *place.for_places(), eps >= 0, voxels,
        padded(channels), **settings,
    )  # fmt: skip
    window_sums, projections = project_windows(sums, held, num_iters)
    y = torch.empty_like(x)
    _apply[(place.blocks, len(x))](
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
    _gradient_of_apply[(count, len(x))](
        x, grad, grad_x, projections, held.windows, grad_projections, partial, *norm, first, last, share, *sizes,
        passes_by, voxels, padded(channels), **settings,
    )  # fmt: skip
    grad_sums = project_windows_backward(grad_projections, window_sums, held, num_iters)
    _gradient_of_sums[(count, len(x))](
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
