"""The four walks of ``mixer`` over the volume: two forward, two backward; each forms H of a tile from x."""

from __future__ import annotations

import triton
from triton import language as tl

from factorizer_nnunet.network.kernels.blocks import last_of_windows, of_windows, per_head, places
from factorizer_nnunet.network.kernels.tiles import normalise, through_norm


@triton.jit
def _hidden(given, inside, exists, factor, offset, first, channels, eps, layer: tl.constexpr):
    """H of a tile, 0 outside the volume, and what its backward pass needs; first: (C, C), of ``in_proj``."""
    base, rstd = normalise(given.to(tl.float32), exists, channels, eps, layer)
    normed = (base * factor[None, :] + offset[None, :]).to(given.dtype)
    hidden = tl.maximum(tl.dot(normed, tl.trans(first)), 0.0)
    return tl.where(inside[:, None], hidden, 0.0).to(given.dtype), normed, base, rstd


@triton.jit
def sum_blocks(
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
def gradient_of_sums(
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
    """Adds to grad_x and to ``partial``, as ``gradient_of_apply`` left them; grad_sums: of windows."""
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
def apply(
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
def gradient_of_apply(
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
