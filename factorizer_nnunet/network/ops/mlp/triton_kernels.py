"""Kernels of ``mlp.triton``: forward, gradient of the input, gradient of the weights."""

from __future__ import annotations

import triton
from triton import language as tl

from factorizer_nnunet.network.ops.norm.triton_tiles import apply_norm, load_norm, norm_gradient


@triton.jit
def _normal(x):
    """Distribution Φ and density φ of the normal distribution, with an error below 1e-7.

    Φ(-|x|) by Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: half as long as the error function.
    """
    bell = tl.exp(-0.5 * x * x)
    t = 1.0 / (1.0 + 0.23164189 * tl.abs(x))
    tail = (
        0.5 * t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * bell
    )
    return tl.where(x >= 0, 1.0 - tail, tail), bell * 0.3989422804014327


@triton.jit
def _gelu(x):
    """x Φ(x)."""
    distribution, density = _normal(x)
    return x * distribution


@triton.jit
def _gelu_slope(x):
    """The derivative of the GELU, Φ(x) + x φ(x)."""
    distribution, density = _normal(x)
    return distribution + x * density


@triton.jit
def _tile(tile, channels, mask, num_voxels, num_channels, BLOCK_VOXELS: tl.constexpr):
    """Offsets of a tile (voxels, C) in a case, and their mask."""
    voxels = tile * BLOCK_VOXELS + tl.arange(0, BLOCK_VOXELS)
    return voxels[:, None] * num_channels + channels[None, :], (voxels < num_voxels)[:, None] & mask[None, :]


@triton.jit
def _expand(
    normed,
    expand_ptr,
    expand_bias_ptr,
    start,
    num_channels,
    num_hidden,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Hidden channels of a tile before the GELU, the weights that produce them, their indices and mask.

    normed: (voxels, C); expand: (H, C); expand_bias: (H,).
    """
    hidden = start + tl.arange(0, BLOCK_HIDDEN)
    channels = tl.arange(0, BLOCK_C)
    hidden_mask = hidden < num_hidden
    mask = hidden_mask[:, None] & (channels < num_channels)[None, :]
    weight = tl.load(expand_ptr + hidden[:, None] * num_channels + channels[None, :], mask, 0.0)
    bias = tl.load(expand_bias_ptr + hidden, hidden_mask, 0.0)
    return tl.dot(normed, tl.trans(weight)) + bias[None, :], weight, hidden, hidden_mask


@triton.jit
def forward(
    x_ptr,
    y_ptr,
    contract_bias_ptr,
    scale_ptr,
    shift_ptr,
    expand_ptr,
    expand_bias_ptr,
    contract_ptr,
    num_voxels,
    num_channels,
    num_hidden,
    eps,
    is_layer_norm: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
):
    # x, y: (cases, voxels, C); scale, shift: (1 or cases, C); expand, contract: (H, C); expand_bias: (H,);
    # contract_bias: (C,); grid: (tiles of voxels, cases)
    case = tl.program_id(1)
    channels = tl.arange(0, BLOCK_C)
    mask = channels < num_channels
    start = case.to(tl.int64) * num_voxels * num_channels
    x_ptr, y_ptr = x_ptr + start, y_ptr + start
    scale, shift = load_norm(scale_ptr, shift_ptr, case, channels, mask, num_channels, is_layer_norm)
    offsets, x_mask = _tile(tl.program_id(0), channels, mask, num_voxels, num_channels, BLOCK_VOXELS)
    x = tl.load(x_ptr + offsets, x_mask, 0.0)
    normed, standardized, rstd = apply_norm(x, scale, shift, mask, num_channels, eps, is_layer_norm)
    y = x.to(tl.float32) + tl.load(contract_bias_ptr + channels, mask, 0.0)[None, :]
    for hidden_start in range(0, num_hidden, BLOCK_HIDDEN):
        before, expand, hidden, hidden_mask = _expand(
            normed, expand_ptr, expand_bias_ptr, hidden_start, num_channels, num_hidden, BLOCK_HIDDEN, BLOCK_C
        )
        contract_offsets = hidden[:, None] * num_channels + channels[None, :]
        contract = tl.load(contract_ptr + contract_offsets, hidden_mask[:, None] & mask[None, :], 0.0)
        y = tl.dot(_gelu(before).to(x.dtype), contract, y)
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), x_mask)


@triton.jit
def input_gradient(
    x_ptr,
    grad_ptr,
    grad_x_ptr,
    sums_ptr,
    scale_ptr,
    shift_ptr,
    expand_ptr,
    expand_bias_ptr,
    contract_ptr,
    num_voxels,
    num_channels,
    num_hidden,
    eps,
    is_layer_norm: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
):
    # x, grad, grad_x: (cases, voxels, C); scale, shift: (1 or cases, C); expand, contract: (H, C); expand_bias: (H,);
    # sums: (cases, programs, 3, C), gradients of scale, shift and contract_bias; grid: (programs, cases)
    case = tl.program_id(1)
    channels = tl.arange(0, BLOCK_C)
    mask = channels < num_channels
    start = case.to(tl.int64) * num_voxels * num_channels
    x_ptr, grad_ptr, grad_x_ptr = x_ptr + start, grad_ptr + start, grad_x_ptr + start
    scale, shift = load_norm(scale_ptr, shift_ptr, case, channels, mask, num_channels, is_layer_norm)
    grad_scale = tl.zeros([BLOCK_C], tl.float32)
    grad_shift = tl.zeros([BLOCK_C], tl.float32)
    grad_bias = tl.zeros([BLOCK_C], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(num_voxels, BLOCK_VOXELS), tl.num_programs(0)):
        offsets, x_mask = _tile(tile, channels, mask, num_voxels, num_channels, BLOCK_VOXELS)
        x = tl.load(x_ptr + offsets, x_mask, 0.0)
        grad = tl.load(grad_ptr + offsets, x_mask, 0.0)
        normed, standardized, rstd = apply_norm(x, scale, shift, mask, num_channels, eps, is_layer_norm)
        grad_normed = tl.zeros([BLOCK_VOXELS, BLOCK_C], tl.float32)
        for hidden_start in range(0, num_hidden, BLOCK_HIDDEN):
            before, expand, hidden, hidden_mask = _expand(
                normed, expand_ptr, expand_bias_ptr, hidden_start, num_channels, num_hidden, BLOCK_HIDDEN, BLOCK_C
            )
            contract_offsets = hidden[:, None] * num_channels + channels[None, :]
            contract = tl.load(contract_ptr + contract_offsets, hidden_mask[:, None] & mask[None, :], 0.0)
            grad_before = tl.dot(grad, tl.trans(contract)) * _gelu_slope(before)
            grad_normed = tl.dot(grad_before.to(x.dtype), expand, grad_normed)
        grad_scale += tl.sum(grad_normed * standardized, 0)
        grad_shift += tl.sum(grad_normed, 0)
        grad_float = grad.to(tl.float32)
        grad_bias += tl.sum(grad_float, 0)
        grad_x = grad_float + norm_gradient(grad_normed, standardized, rstd, scale, num_channels, is_layer_norm)
        tl.store(grad_x_ptr + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), x_mask)
    pointers = sums_ptr + (case * tl.num_programs(0) + tl.program_id(0)) * 3 * num_channels + channels
    tl.store(pointers, grad_scale, mask)
    tl.store(pointers + num_channels, grad_shift, mask)
    tl.store(pointers + 2 * num_channels, grad_bias, mask)


@triton.jit
def weight_gradient(
    x_ptr,
    grad_ptr,
    sums_ptr,
    scale_ptr,
    shift_ptr,
    expand_ptr,
    expand_bias_ptr,
    contract_ptr,
    num_voxels,
    num_channels,
    num_hidden,
    eps,
    is_layer_norm: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
):
    # x, grad: (cases, voxels, C); scale, shift: (1 or cases, C); expand, contract: (H, C); expand_bias: (H,);
    # sums: (cases, programs, 2 H C + H), gradients of expand, contract and expand_bias;
    # grid: (programs, parts of the hidden channels, cases)
    case = tl.program_id(2)
    hidden_start = tl.program_id(1) * BLOCK_HIDDEN
    channels = tl.arange(0, BLOCK_C)
    mask = channels < num_channels
    start = case.to(tl.int64) * num_voxels * num_channels
    x_ptr, grad_ptr = x_ptr + start, grad_ptr + start
    scale, shift = load_norm(scale_ptr, shift_ptr, case, channels, mask, num_channels, is_layer_norm)
    hidden = hidden_start + tl.arange(0, BLOCK_HIDDEN)
    hidden_mask = hidden < num_hidden
    weight_mask = hidden_mask[:, None] & mask[None, :]
    weight_offsets = hidden[:, None] * num_channels + channels[None, :]
    contract = tl.load(contract_ptr + weight_offsets, weight_mask, 0.0)
    grad_expand = tl.zeros([BLOCK_HIDDEN, BLOCK_C], tl.float32)
    grad_contract = tl.zeros([BLOCK_HIDDEN, BLOCK_C], tl.float32)
    grad_bias = tl.zeros([BLOCK_HIDDEN], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(num_voxels, BLOCK_VOXELS), tl.num_programs(0)):
        offsets, x_mask = _tile(tile, channels, mask, num_voxels, num_channels, BLOCK_VOXELS)
        x = tl.load(x_ptr + offsets, x_mask, 0.0)
        grad = tl.load(grad_ptr + offsets, x_mask, 0.0)
        normed, standardized, rstd = apply_norm(x, scale, shift, mask, num_channels, eps, is_layer_norm)
        before, expand, same_hidden, same_mask = _expand(
            normed, expand_ptr, expand_bias_ptr, hidden_start, num_channels, num_hidden, BLOCK_HIDDEN, BLOCK_C
        )
        grad_before = tl.dot(grad, tl.trans(contract)) * _gelu_slope(before)
        # Voxels beyond the volume have a hidden layer, too, but no gradient.
        grad_bias += tl.sum(grad_before, 0)
        grad_expand = tl.dot(tl.trans(grad_before.to(x.dtype)), normed, grad_expand)
        grad_contract = tl.dot(tl.trans(_gelu(before).to(x.dtype)), grad, grad_contract)
    row_ptr = sums_ptr + (case.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * num_hidden * (
        2 * num_channels + 1
    )
    tl.store(row_ptr + weight_offsets, grad_expand, weight_mask)
    tl.store(row_ptr + num_hidden * num_channels + weight_offsets, grad_contract, weight_mask)
    tl.store(row_ptr + 2 * num_hidden * num_channels + hidden, grad_bias, hidden_mask)
