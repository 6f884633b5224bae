"""Depthwise convolution with kernels of 3 (or 1) voxels an axis on channels-last volumes.

cuDNN's own takes some twenty times as long as reading the volume once, and copies it to another layout. Here a program
walks down the rows of a plane with a tile of neighbouring voxels along the last axis: each row is read once per plane
and tap, and adds to the three output rows that see it. The gradient of x is the same walk with flipped kernels; that of
the kernels multiplies rows of the gradient with rows of x, and keeps nine sums.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from torch.nn import functional as F
from triton import language as tl

from factorizer_nnunet.network.kernels.choice import padded
from factorizer_nnunet.network.kernels.operators import differentiable, operator

_ROWS = 16  # that a program walks down
_PLANES = 2  # through which a program sums gradients of the kernels
_MOST_CHANNELS = 64  # of a tile
_TILE = 256  # voxels times channels of a tile: two for each thread
_SUMS_TILE = 512  # likewise, where nine sums are kept: eight for each thread


@triton.jit
def _taps(weight, plane, cols, inside, channels):
    """The nine weights of a plane of the kernels; weight: (3, 3, 3 or 1 planes first, C)."""
    at = weight + plane * 9 * channels + cols
    return (
        tl.load(at, inside, 0.0),
        tl.load(at + channels, inside, 0.0),
        tl.load(at + 2 * channels, inside, 0.0),
        tl.load(at + 3 * channels, inside, 0.0),
        tl.load(at + 4 * channels, inside, 0.0),
        tl.load(at + 5 * channels, inside, 0.0),
        tl.load(at + 6 * channels, inside, 0.0),
        tl.load(at + 7 * channels, inside, 0.0),
        tl.load(at + 8 * channels, inside, 0.0),
    )


@triton.jit
def _row(at, offsets, inside, left, right, channels):
    """A tile of a row and its neighbours to the left and to the right, in float32."""
    return (
        tl.load(at + offsets - channels, inside & left, 0.0).to(tl.float32),
        tl.load(at + offsets, inside, 0.0).to(tl.float32),
        tl.load(at + offsets + channels, inside & right, 0.0).to(tl.float32),
    )


@triton.jit
def _add(above, here, below, row, taps):
    """Add a row of the input to the output rows above it, of it and below it."""
    a, b, c = row
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = taps
    above += a * w6 + b * w7 + c * w8
    here += a * w3 + b * w4 + c * w5
    below += a * w0 + b * w1 + c * w2
    return above, here, below


@triton.jit(do_not_specialize=["depth", "height", "width"])
def _convolve(
    x,
    y,
    weight,
    bias,
    depth,
    height,
    width,
    channels,
    planes: tl.constexpr,
    has_bias: tl.constexpr,
    ROWS: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    tiles = tl.cdiv(width, VOXELS)
    first = (tl.program_id(0) // tiles) * ROWS
    plane = tl.program_id(1)
    z = plane % depth
    voxels = (tl.program_id(0) % tiles) * VOXELS + tl.arange(0, VOXELS)
    cols = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    exists = cols < channels
    inside = (voxels < width)[:, None] & exists[None, :]
    left, right = (voxels > 0)[:, None], (voxels < width - 1)[:, None]
    offsets = voxels[:, None] * channels + cols[None, :]
    row_size = width * channels
    plane_size = height.to(tl.int64) * row_size
    start = plane * plane_size
    middle = planes // 2
    taps_here = _taps(weight, middle, cols, exists, channels)
    if planes == 3:
        taps_before = _taps(weight, 0, cols, exists, channels)
        taps_behind = _taps(weight, 2, cols, exists, channels)
    base = tl.zeros((VOXELS, CHANNELS), tl.float32)
    if has_bias:
        base += tl.load(bias + cols, exists, 0.0)[None, :]
    above, here, below = base, base, base
    for step in range(ROWS + 2):
        row = first + step - 1
        valid = (row >= 0) & (row < height)
        at = x + start + row * row_size
        tile = _row(at, offsets, inside & valid, left, right, channels)
        above, here, below = _add(above, here, below, tile, taps_here)
        if planes == 3:
            tile = _row(at - plane_size, offsets, inside & valid & (z > 0), left, right, channels)
            above, here, below = _add(above, here, below, tile, taps_before)
            tile = _row(at + plane_size, offsets, inside & valid & (z < depth - 1), left, right, channels)
            above, here, below = _add(above, here, below, tile, taps_behind)
        finished = (step >= 2) & (row - 1 < height)
        tl.store(y + start + (row - 1) * row_size + offsets, above.to(y.dtype.element_ty), inside & finished)
        above, here, below = here, below, base


@triton.jit(do_not_specialize=["depth", "height", "width"])
def _kernel_gradient(
    x,
    grad,
    sums,
    depth,
    height,
    width,
    channels,
    planes: tl.constexpr,
    PLANES: tl.constexpr,
    VOXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """sums: (programs, planes, 10, C): nine taps, and the sum of the gradient."""
    of_kernel = tl.program_id(0) % planes
    tiles = tl.cdiv(width, VOXELS)
    chunks = tl.cdiv(depth, PLANES)
    program = tl.program_id(0) // planes
    voxels = (program % tiles) * VOXELS + tl.arange(0, VOXELS)
    first = (program // tiles % chunks) * PLANES
    case = program // tiles // chunks
    cols = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    exists = cols < channels
    inside = (voxels < width)[:, None] & exists[None, :]
    left, right = (voxels > 0)[:, None], (voxels < width - 1)[:, None]
    offsets = voxels[:, None] * channels + cols[None, :]
    row_size = width * channels
    plane_size = height.to(tl.int64) * row_size
    zero = tl.zeros((VOXELS, CHANNELS), tl.float32)
    s0, s1, s2, s3, s4, s5, s6, s7, s8, total = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    for step in range(PLANES):
        z = first + step
        seen = z + of_kernel - planes // 2
        both = (z < depth) & (seen >= 0) & (seen < depth)
        own = grad + (case * depth + z) * plane_size
        other = x + (case * depth + seen) * plane_size
        above = zero
        here = tl.load(own + offsets, inside & (z < depth), 0.0).to(tl.float32)
        for row in range(height):
            total += here
            following = inside & (z < depth) & (row + 1 < height)
            below = tl.load(own + (row + 1) * row_size + offsets, following, 0.0).to(tl.float32)
            a, b, c = _row(other + row * row_size, offsets, inside & both, left, right, channels)
            s0 += a * below
            s1 += b * below
            s2 += c * below
            s3 += a * here
            s4 += b * here
            s5 += c * here
            s6 += a * above
            s7 += b * above
            s8 += c * above
            above, here = here, below
    at = sums + (program * planes + of_kernel) * 10 * channels + cols
    tl.store(at, tl.sum(s0, 0), exists)
    tl.store(at + channels, tl.sum(s1, 0), exists)
    tl.store(at + 2 * channels, tl.sum(s2, 0), exists)
    tl.store(at + 3 * channels, tl.sum(s3, 0), exists)
    tl.store(at + 4 * channels, tl.sum(s4, 0), exists)
    tl.store(at + 5 * channels, tl.sum(s5, 0), exists)
    tl.store(at + 6 * channels, tl.sum(s6, 0), exists)
    tl.store(at + 7 * channels, tl.sum(s7, 0), exists)
    tl.store(at + 8 * channels, tl.sum(s8, 0), exists)
    tl.store(at + 9 * channels, tl.sum(total, 0), exists)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution, stride 1, same size out; x: (B, *spatial, C), weight: (C, 1, *kernel), bias: (C,)."""
    spatial, kernel = x.shape[1:-1], weight.shape[2:]
    missing = 3 - len(spatial)
    x = x.reshape(x.shape[0], *[1] * missing, *spatial, x.shape[-1])
    weight = weight.reshape(weight.shape[0], *[1] * missing, *kernel)
    to_three = [side for size in reversed(weight.shape[3:]) for side in ((3 - size) // 2,) * 2]  # but for the planes
    weight = F.pad(weight, to_three).permute(1, 2, 3, 0)  # (planes, 3, 3, C)
    return _depthwise(x, weight, bias).reshape(x.shape[0], *spatial, -1)


def _like_depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@operator("depthwise", _like_depthwise)
def _depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x: (B, D, H, W, C); weight: (1 or 3, 3, 3, C)."""
    return _launch(x.contiguous(), weight.contiguous(), bias)


def _like_depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    contiguous = torch.contiguous_format
    return (
        torch.empty_like(x, memory_format=contiguous),
        torch.empty_like(weight, memory_format=contiguous),
        weight.new_empty(weight.shape[-1]),
    )


@operator("depthwise_backward", _like_depthwise_backward)
def _depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    x, grad = x.contiguous(), grad.contiguous()
    grad_x = _launch(grad, weight.flip(0, 1, 2).contiguous(), None)
    cases, depth, height, width, channels = x.shape
    planes = weight.shape[0]
    voxels, group = _tile(channels, _SUMS_TILE)
    programs = cases * triton.cdiv(depth, _PLANES) * triton.cdiv(width, voxels)
    sums = x.new_empty((programs, planes, 10, channels), dtype=torch.float32)
    _kernel_gradient[(programs * planes, triton.cdiv(channels, group))](
        x, grad, sums, depth, height, width, channels, planes, _PLANES, voxels, group, num_warps=2
    )
    sums = sums.sum(0)
    return grad_x, sums[:, :9].reshape(weight.shape).clone(), sums[planes // 2, 9].clone()


def _launch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    cases, depth, height, width, channels = x.shape
    y = torch.empty_like(x)
    voxels, group = _tile(channels, _TILE)
    grid = (triton.cdiv(width, voxels) * triton.cdiv(height, _ROWS), cases * depth, triton.cdiv(channels, group))
    given = weight if bias is None else bias
    planes = weight.shape[0]
    _convolve[grid](
        x,
        y,
        weight,
        given,
        depth,
        height,
        width,
        channels,
        planes,
        bias is not None,
        _ROWS,
        voxels,
        group,
    )
    return y


def _tile(channels: int, size: int) -> tuple[int, int]:
    """Voxels and channels of a tile."""
    group = min(_MOST_CHANNELS, padded(channels))
    return size // group, group


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _depthwise_backward(grad, *ctx.saved_tensors)


differentiable(_depthwise, _backward, _keep)
