"""Depthwise convolution with kernels of 3 (or 1) voxels per axis on channels-last volumes.

cuDNN takes some twenty times as long as reading the volume once, and copies it to another layout. Here a program goes
down the rows of a plane with a tile of adjacent voxels along the last axis: each row is read once per plane of the
kernel and tap, and is added to the three output rows that depend on it. The gradient of x is the same with flipped
kernels; the gradient of the kernels multiplies rows of the gradient with rows of x and accumulates nine sums.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F
from triton import language as tl

from factorizer_nnunet.network.ops.launch import like_first, operator, padded, wrap_triton

_ROWS = 16  # rows per program
_PLANES = 2  # planes over which a program sums gradients of the kernels
_MAX_BLOCK_C = 64
_TILE_NUMEL = 256  # two for each thread
_SUMS_TILE_NUMEL = 512  # where nine sums are accumulated: eight for each thread


@triton.jit
def _tile(num_channels, width, tile, group, BLOCK_VOXELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Channels and their mask; offsets in a row, their mask, and which voxels have a left and a right neighbor."""
    voxels = tile * BLOCK_VOXELS + tl.arange(0, BLOCK_VOXELS)
    channels = group * BLOCK_C + tl.arange(0, BLOCK_C)
    channel_mask = channels < num_channels
    mask = (voxels < width)[:, None] & channel_mask[None, :]
    has_left, has_right = (voxels > 0)[:, None], (voxels < width - 1)[:, None]
    return channels, channel_mask, voxels[:, None] * num_channels + channels[None, :], mask, has_left, has_right


@triton.jit
def _load_taps(weight_ptr, plane, channels, mask, num_channels):
    """The nine weights of a plane of the kernels; weight: (1 or 3 planes, 3, 3, C)."""
    pointers = weight_ptr + plane * 9 * num_channels + channels
    return (
        tl.load(pointers, mask, 0.0),
        tl.load(pointers + num_channels, mask, 0.0),
        tl.load(pointers + 2 * num_channels, mask, 0.0),
        tl.load(pointers + 3 * num_channels, mask, 0.0),
        tl.load(pointers + 4 * num_channels, mask, 0.0),
        tl.load(pointers + 5 * num_channels, mask, 0.0),
        tl.load(pointers + 6 * num_channels, mask, 0.0),
        tl.load(pointers + 7 * num_channels, mask, 0.0),
        tl.load(pointers + 8 * num_channels, mask, 0.0),
    )


@triton.jit
def _load_row(row_ptr, offsets, mask, has_left, has_right, num_channels):
    """A tile of a row and its neighbors to the left and to the right, in float32."""
    return (
        tl.load(row_ptr + offsets - num_channels, mask & has_left, 0.0).to(tl.float32),
        tl.load(row_ptr + offsets, mask, 0.0).to(tl.float32),
        tl.load(row_ptr + offsets + num_channels, mask & has_right, 0.0).to(tl.float32),
    )


@triton.jit
def _add_row(previous, current, following, row, taps):
    """Add a row of the input to the output rows before it, at it and after it."""
    left, center, right = row
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = taps
    previous += left * w6 + center * w7 + right * w8
    current += left * w3 + center * w4 + right * w5
    following += left * w0 + center * w1 + right * w2
    return previous, current, following


@triton.jit(do_not_specialize=["depth", "height", "width"])
def _convolve(
    x_ptr,
    y_ptr,
    weight_ptr,
    bias_ptr,
    depth,
    height,
    width,
    num_channels,
    num_planes: tl.constexpr,
    has_bias: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # x, y: (cases * depth, height, width, C); weight: (num_planes, 3, 3, C); bias: (C,);
    # grid: (blocks of rows * tiles of a row, cases * depth, groups of channels)
    tiles = tl.cdiv(width, BLOCK_VOXELS)
    first_row = (tl.program_id(0) // tiles) * ROWS
    plane = tl.program_id(1)
    z = plane % depth
    channels, channel_mask, offsets, mask, has_left, has_right = _tile(
        num_channels, width, tl.program_id(0) % tiles, tl.program_id(2), BLOCK_VOXELS, BLOCK_C
    )
    row_stride = width * num_channels
    plane_stride = height.to(tl.int64) * row_stride
    start = plane * plane_stride
    taps = _load_taps(weight_ptr, num_planes // 2, channels, channel_mask, num_channels)
    if num_planes == 3:
        taps_before = _load_taps(weight_ptr, 0, channels, channel_mask, num_channels)
        taps_after = _load_taps(weight_ptr, 2, channels, channel_mask, num_channels)
    base = tl.zeros((BLOCK_VOXELS, BLOCK_C), tl.float32)
    if has_bias:
        base += tl.load(bias_ptr + channels, channel_mask, 0.0)[None, :]
    previous, current, following = base, base, base
    for step in range(ROWS + 2):
        row = first_row + step - 1
        x_mask = mask & ((row >= 0) & (row < height))
        row_ptr = x_ptr + start + row * row_stride
        tile = _load_row(row_ptr, offsets, x_mask, has_left, has_right, num_channels)
        previous, current, following = _add_row(previous, current, following, tile, taps)
        if num_planes == 3:
            tile = _load_row(row_ptr - plane_stride, offsets, x_mask & (z > 0), has_left, has_right, num_channels)
            previous, current, following = _add_row(previous, current, following, tile, taps_before)
            tile = _load_row(
                row_ptr + plane_stride, offsets, x_mask & (z < depth - 1), has_left, has_right, num_channels
            )
            previous, current, following = _add_row(previous, current, following, tile, taps_after)
        y_mask = mask & ((step >= 2) & (row - 1 < height))  # the row before this one is complete
        tl.store(y_ptr + start + (row - 1) * row_stride + offsets, previous.to(y_ptr.dtype.element_ty), y_mask)
        previous, current, following = current, following, base


# Longer than 60 lines: a kernel is one program, and its tiles stay in registers only within it.
@triton.jit(do_not_specialize=["depth", "height", "width"])
def _weight_gradient(
    x_ptr,
    grad_ptr,
    sums_ptr,
    depth,
    height,
    width,
    num_channels,
    num_planes: tl.constexpr,
    PLANES: tl.constexpr,
    BLOCK_VOXELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # x, grad: (cases, depth, height, width, C); sums: (programs, num_planes, 10, C): nine taps, and the gradient's sum;
    # grid: (programs * num_planes, groups of channels), programs = cases * chunks of planes * tiles of a row
    kernel_plane = tl.program_id(0) % num_planes
    tiles = tl.cdiv(width, BLOCK_VOXELS)
    chunks = tl.cdiv(depth, PLANES)
    program = tl.program_id(0) // num_planes
    first_plane = (program // tiles % chunks) * PLANES
    case = program // tiles // chunks
    channels, channel_mask, offsets, mask, has_left, has_right = _tile(
        num_channels, width, program % tiles, tl.program_id(1), BLOCK_VOXELS, BLOCK_C
    )
    row_stride = width * num_channels
    plane_stride = height.to(tl.int64) * row_stride
    zero = tl.zeros((BLOCK_VOXELS, BLOCK_C), tl.float32)
    s0, s1, s2, s3, s4, s5, s6, s7, s8, total = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    for step in range(PLANES):
        z = first_plane + step
        x_z = z + kernel_plane - num_planes // 2
        x_mask = mask & ((z < depth) & (x_z >= 0) & (x_z < depth))
        grad_plane_ptr = grad_ptr + (case * depth + z) * plane_stride
        x_plane_ptr = x_ptr + (case * depth + x_z) * plane_stride
        previous = zero
        current = tl.load(grad_plane_ptr + offsets, mask & (z < depth), 0.0).to(tl.float32)
        for row in range(height):
            total += current
            grad_mask = mask & (z < depth) & (row + 1 < height)
            following = tl.load(grad_plane_ptr + (row + 1) * row_stride + offsets, grad_mask, 0.0).to(tl.float32)
            left, center, right = _load_row(
                x_plane_ptr + row * row_stride, offsets, x_mask, has_left, has_right, num_channels
            )
            s0 += left * following
            s1 += center * following
            s2 += right * following
            s3 += left * current
            s4 += center * current
            s5 += right * current
            s6 += left * previous
            s7 += center * previous
            s8 += right * previous
            previous, current = current, following
    pointers = sums_ptr + (program * num_planes + kernel_plane) * 10 * num_channels + channels
    tl.store(pointers, tl.sum(s0, 0), channel_mask)
    tl.store(pointers + num_channels, tl.sum(s1, 0), channel_mask)
    tl.store(pointers + 2 * num_channels, tl.sum(s2, 0), channel_mask)
    tl.store(pointers + 3 * num_channels, tl.sum(s3, 0), channel_mask)
    tl.store(pointers + 4 * num_channels, tl.sum(s4, 0), channel_mask)
    tl.store(pointers + 5 * num_channels, tl.sum(s5, 0), channel_mask)
    tl.store(pointers + 6 * num_channels, tl.sum(s6, 0), channel_mask)
    tl.store(pointers + 7 * num_channels, tl.sum(s7, 0), channel_mask)
    tl.store(pointers + 8 * num_channels, tl.sum(s8, 0), channel_mask)
    tl.store(pointers + 9 * num_channels, tl.sum(total, 0), channel_mask)


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As ``reference.depthwise_conv``, for kernels of at most 3 voxels per axis."""
    spatial, kernel = x.shape[1:-1], weight.shape[2:]
    missing = 3 - len(spatial)
    x = x.reshape(x.shape[0], *[1] * missing, *spatial, x.shape[-1])
    weight = weight.reshape(weight.shape[0], *[1] * missing, *kernel)
    padding = [side for size in reversed(weight.shape[3:]) for side in ((3 - size) // 2,) * 2]  # to 3×3, not in depth
    weight = F.pad(weight, padding).permute(1, 2, 3, 0)  # (planes, 3, 3, C)
    return _depthwise(x, weight, bias).reshape(x.shape[0], *spatial, -1)


@operator("depthwise", like_first)
def _depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x: (B, D, H, W, C); weight: (1 or 3, 3, 3, C)."""
    return _launch_convolve(x.contiguous(), weight.contiguous(), bias)


def _fake_depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return like_first(x), like_first(weight), weight.new_empty(weight.shape[-1])


@operator("depthwise_backward", _fake_depthwise_backward)
def _depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    x, grad = x.contiguous(), grad.contiguous()
    grad_x = _launch_convolve(grad, weight.flip(0, 1, 2).contiguous(), None)
    cases, depth, height, width, channels = x.shape
    planes = weight.shape[0]
    block_voxels, block_c = _tile_sizes(channels, _SUMS_TILE_NUMEL)
    programs = cases * triton.cdiv(depth, _PLANES) * triton.cdiv(width, block_voxels)
    sums = x.new_empty((programs, planes, 10, channels), dtype=torch.float32)
    wrap_triton(_weight_gradient)[(programs * planes, triton.cdiv(channels, block_c))](
        x, grad, sums, depth, height, width, channels, planes, _PLANES, block_voxels, block_c, num_warps=2
    )
    sums = sums.sum(0)
    return grad_x, sums[:, :9].reshape(weight.shape).clone(), sums[planes // 2, 9].clone()


def _launch_convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    cases, depth, height, width, channels = x.shape
    y = torch.empty_like(x)
    block_voxels, block_c = _tile_sizes(channels, _TILE_NUMEL)
    tiles = triton.cdiv(width, block_voxels) * triton.cdiv(height, _ROWS)
    wrap_triton(_convolve)[(tiles, cases * depth, triton.cdiv(channels, block_c))](
        x,
        y,
        weight,
        weight if bias is None else bias,
        depth,
        height,
        width,
        channels,
        weight.shape[0],
        bias is not None,
        _ROWS,
        block_voxels,
        block_c,
    )
    return y


def _tile_sizes(channels: int, numel: int) -> tuple[int, int]:
    """Voxels and channels of a tile."""
    block_c = min(_MAX_BLOCK_C, padded(channels))
    return numel // block_c, block_c


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor] = _depthwise_backward(grad, *ctx.saved_tensors)
    return gradients


_depthwise.differentiable(_backward, _setup_context)
