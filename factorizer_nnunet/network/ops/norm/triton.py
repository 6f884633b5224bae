"""Mean and variance over the voxels of each case and channel in one pass over the volume.

Sums are of differences from the middle voxel, so that a large mean does not drown the variance.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from triton import language as tl

from factorizer_nnunet.network.ops.launch import num_programs, operator, padded, wrap_triton
from factorizer_nnunet.network.ops.norm.reference import scale_and_shift

_TILE_NUMEL = 2048
_MAX_PROGRAMS = 264  # per case: two for each multiprocessor of a large GPU


@triton.jit
def _sum_differences(x_ptr, sums_ptr, num_voxels, num_channels, BLOCK_VOXELS: tl.constexpr, BLOCK_C: tl.constexpr):
    # x: (cases, voxels, C); sums: (cases, programs, 2, C), of differences from the middle voxel and of their squares;
    # grid: (programs, cases, groups of channels)
    case = tl.program_id(1)
    channels = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = channels < num_channels
    x_ptr += case.to(tl.int64) * num_voxels * num_channels
    pivot = tl.load(x_ptr + (num_voxels // 2) * num_channels + channels, mask, 0.0).to(tl.float32)
    sums = tl.zeros([BLOCK_VOXELS, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_VOXELS, BLOCK_C], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(num_voxels, BLOCK_VOXELS), tl.num_programs(0)):
        voxels = tile * BLOCK_VOXELS + tl.arange(0, BLOCK_VOXELS)
        x_mask = (voxels < num_voxels)[:, None] & mask[None, :]
        x = tl.load(x_ptr + voxels[:, None] * num_channels + channels[None, :], x_mask, 0.0).to(tl.float32)
        difference = tl.where(x_mask, x - pivot[None, :], 0.0)
        sums += difference
        squares += difference * difference
    pointers = sums_ptr + (case * tl.num_programs(0) + tl.program_id(0)) * 2 * num_channels + channels
    tl.store(pointers, tl.sum(sums, 0), mask)
    tl.store(pointers + num_channels, tl.sum(squares, 0), mask)


@triton.jit
def _moments_from_sums(
    x_ptr,
    sums_ptr,
    mean_ptr,
    variance_ptr,
    num_voxels,
    num_channels,
    num_programs,
    BLOCK_PROGRAMS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # x: (cases, voxels, C); sums: (cases, programs, 2, C); mean, variance: (cases, C); grid: (cases, channel groups)
    case = tl.program_id(0)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = channels < num_channels
    sums = tl.zeros([BLOCK_PROGRAMS, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_PROGRAMS, BLOCK_C], tl.float32)
    for start in range(0, num_programs, BLOCK_PROGRAMS):
        programs = start + tl.arange(0, BLOCK_PROGRAMS)
        sums_mask = (programs < num_programs)[:, None] & mask[None, :]
        pointers = sums_ptr + (case * num_programs + programs)[:, None] * 2 * num_channels + channels[None, :]
        sums += tl.load(pointers, sums_mask, 0.0)
        squares += tl.load(pointers + num_channels, sums_mask, 0.0)
    difference = tl.sum(sums, 0) / num_voxels
    middle = (case.to(tl.int64) * num_voxels + num_voxels // 2) * num_channels
    pivot = tl.load(x_ptr + middle + channels, mask, 0.0).to(tl.float32)
    tl.store(mean_ptr + case * num_channels + channels, pivot + difference, mask)
    variance = tl.sum(squares, 0) / num_voxels - difference * difference
    tl.store(variance_ptr + case * num_channels + channels, tl.maximum(variance, 0.0), mask)  # rounding may give less


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """As ``reference.instance_norm``; the moments come from a kernel."""
    per_channel = scale_and_shift(channel_moments(x), weight, bias, eps)
    scale, shift = (t.reshape(len(x), *[1] * (x.ndim - 2), -1) for t in per_channel)
    return torch.addcmul(shift, x, scale)


def _fake_channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.new_empty((x.shape[0], x.shape[-1]), dtype=torch.float32)
    return mean, torch.empty_like(mean)


@operator("channel_moments", _fake_channel_moments)
def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """As ``cpu.channel_moments``, in float32."""
    x = x.contiguous()
    cases, voxels, channels = len(x), x[0, ..., 0].numel(), x.shape[-1]
    block_c = min(64, padded(channels))
    block_voxels = _TILE_NUMEL // block_c
    programs, groups = num_programs(triton.cdiv(voxels, block_voxels), _MAX_PROGRAMS), triton.cdiv(channels, block_c)
    sums = x.new_empty((cases, programs, 2, channels), dtype=torch.float32)
    wrap_triton(_sum_differences)[(programs, cases, groups)](x, sums, voxels, channels, block_voxels, block_c)
    mean = x.new_empty((cases, channels), dtype=torch.float32)
    variance = torch.empty_like(mean)
    wrap_triton(_moments_from_sums)[(cases, groups)](x, sums, mean, variance, voxels, channels, programs, 32, block_c)
    return mean, variance


def _setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[0])


def _backward(ctx: Any, grad_mean: Tensor, grad_variance: Tensor) -> Tensor:
    x, mean = ctx.saved_tensors
    voxels = x[0, ..., 0].numel()
    slope = 2 * grad_variance / voxels
    constant = grad_mean / voxels - slope * mean
    return (constant[:, None] + x.flatten(1, -2) * slope[:, None]).reshape(x.shape).to(x.dtype)


channel_moments.differentiable(_backward, _setup_context)
