"""Positional embeddings, added to the features of the lowest resolution; (B, *spatial, C) in and out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

POSITIONS = ("none", "learned", "axial", "sinusoidal")
# Kinds that store a value per position and thus need the size of the stage.
SIZED_POSITIONS = ("learned", "axial")


class LearnedPosition(nn.Module):
    """One learned vector per voxel, as published; for one size only."""

    def __init__(self, channels: int, size: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, *size, channels))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *size, C); returns the same shape."""
        return x + self.weight


class AxialPosition(nn.Module):
    """The sum of one learned vector per coordinate of each axis; for one size only."""

    def __init__(self, channels: int, size: Sequence[int]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(length, channels) for length in size)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *size, C); returns the same shape."""
        for axis, weight in enumerate(self.weights):
            x = x + weight.reshape([-1 if i == axis else 1 for i in range(len(self.weights))] + [x.shape[-1]])
        return x


class SinusoidalPosition(nn.Module):
    """Sines and cosines of each coordinate (Vaswani et al., arXiv 1706.03762, section 3.5); for any size.

    The channels are divided evenly among the axes; the remaining ones do not change.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns the same shape."""
        ndim, channels = x.ndim - 2, x.shape[-1]
        frequencies = channels // (2 * ndim)
        if frequencies == 0:
            return x
        rates = torch.exp(torch.arange(frequencies, device=x.device) * (-math.log(1e4) / frequencies))
        parts = []
        for axis in range(ndim):
            angles = torch.arange(x.shape[axis + 1], device=x.device)[:, None] * rates
            waves = torch.cat((angles.sin(), angles.cos()), -1).to(x.dtype)
            shape = [-1 if i == axis else 1 for i in range(ndim)] + [2 * frequencies]
            parts.append(waves.reshape(shape).expand(*x.shape[1:-1], -1))
        rest = x.new_zeros(*x.shape[1:-1], channels - 2 * frequencies * ndim)
        return x + torch.cat((*parts, rest), -1)


def build_position(kind: str, channels: int, size: Sequence[int] | None) -> nn.Module:
    """Build the embedding named ``kind`` in POSITIONS.

    Args:
        channels: channels of the lowest resolution.
        size: voxels per axis of the lowest resolution; not None for SIZED_POSITIONS.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "sinusoidal":
        return SinusoidalPosition()
    assert size is not None  # ``FactorizerConfig`` asks for patch_size
    return LearnedPosition(channels, size) if kind == "learned" else AxialPosition(channels, size)
