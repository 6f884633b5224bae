"""Mean and variance over the voxels of each case and channel in one walk over the volume.

Sums are of differences from the middle voxel, so that a large mean does not drown the variance.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton import language as tl

from factorizer_nnunet.network.kernels.choice import padded, programs
from factorizer_nnunet.network.kernels.operators import differentiable, operator

_NUMBERS = 2048  # of a tile
_PROGRAMS = 264  # per case: two for each processor of a large GPU


@triton.jit
def _sums(x, sums, voxels, channels, VOXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """sums: (cases, programs, 2, C), of differences and of their squares."""
    case = tl.program_id(1)
    cols = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    exists = cols < channels
    x += case.to(tl.int64) * voxels * channels
    pivot = tl.load(x + (voxels // 2) * channels + cols, exists, 0.0).to(tl.float32)
    once = tl.zeros([VOXELS, CHANNELS], tl.float32)
    twice = tl.zeros([VOXELS, CHANNELS], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(voxels, VOXELS), tl.num_programs(0)):
        rows = tile * VOXELS + tl.arange(0, VOXELS)
        inside = (rows < voxels)[:, None] & exists[None, :]
        given = tl.load(x + rows[:, None] * channels + cols[None, :], inside, 0.0).to(tl.float32)
        difference = tl.where(inside, given - pivot[None, :], 0.0)
        once += difference
        twice += difference * difference
    at = sums + (case * tl.num_programs(0) + tl.program_id(0)) * 2 * channels + cols
    tl.store(at, tl.sum(once, 0), exists)
    tl.store(at + channels, tl.sum(twice, 0), exists)


@triton.jit
def _finish(x, sums, mean, variance, voxels, channels, programs, PROGRAMS: tl.constexpr, CHANNELS: tl.constexpr):
    """Mean and variance, (cases, C), from the sums of all programs."""
    case = tl.program_id(0)
    cols = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    exists = cols < channels
    once = tl.zeros([PROGRAMS, CHANNELS], tl.float32)
    twice = tl.zeros([PROGRAMS, CHANNELS], tl.float32)
    for first in range(0, programs, PROGRAMS):
        rows = first + tl.arange(0, PROGRAMS)
        inside = (rows < programs)[:, None] & exists[None, :]
        at = sums + (case * programs + rows)[:, None] * 2 * channels + cols[None, :]
        once += tl.load(at, inside, 0.0)
        twice += tl.load(at + channels, inside, 0.0)
    difference = tl.sum(once, 0) / voxels
    middle = (case.to(tl.int64) * voxels + voxels // 2) * channels
    pivot = tl.load(x + middle + cols, exists, 0.0).to(tl.float32)
    tl.store(mean + case * channels + cols, pivot + difference, exists)
    squares = tl.sum(twice, 0) / voxels - difference * difference
    tl.store(variance + case * channels + cols, tl.maximum(squares, 0.0), exists)  # rounding may leave less


def _like_channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.new_empty((x.shape[0], x.shape[-1]), dtype=torch.float32)
    return mean, torch.empty_like(mean)


@operator("channel_moments", _like_channel_moments)
def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance, (B, C) each, float32; x: (B, *spatial, C)."""
    x = x.contiguous()
    cases, voxels, channels = len(x), x[0, ..., 0].numel(), x.shape[-1]
    group = min(64, padded(channels))
    tile = _NUMBERS // group
    count, groups = programs(triton.cdiv(voxels, tile), _PROGRAMS), triton.cdiv(channels, group)
    sums = x.new_empty((cases, count, 2, channels), dtype=torch.float32)
    _sums[(count, cases, groups)](x, sums, voxels, channels, tile, group)
    mean = x.new_empty((cases, channels), dtype=torch.float32)
    variance = torch.empty_like(mean)
    _finish[(cases, groups)](x, sums, mean, variance, voxels, channels, count, 32, group)
    return mean, variance


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[0])


def _backward(ctx: torch.autograd.function.FunctionCtx, grad_mean: Tensor, grad_variance: Tensor) -> Tensor:
    x, mean = ctx.saved_tensors
    voxels = x[0, ..., 0].numel()
    slope = 2 * grad_variance / voxels
    constant = grad_mean / voxels - slope * mean
    return (constant[:, None] + x.flatten(1, -2) * slope[:, None]).reshape(x.shape).to(x.dtype)


differentiable(channel_moments, _backward, _keep)
