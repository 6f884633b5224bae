"""Convolutions on channels-last tensors (B, *spatial, C).

Channels stay last from stem to head, so that every pointwise product is a plain matrix product and no tensor is
permuted in memory; convolutions see the same storage as a channels-last (B, C, *spatial) view.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from factorizer_nnunet.network.layout import channels_first, channels_last
from factorizer_nnunet.network.ops import dispatch

# by the number of spatial axes
_CONV: dict[int, Callable[..., nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Callable[..., nn.ConvTranspose2d | nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


class _ChannelsLast(nn.Module):
    """A convolution of PyTorch, which expects channels first."""

    conv: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns (B, *spatial', C')."""
        return channels_last(self.conv(channels_first(x)))


class Conv(_ChannelsLast):
    """Convolution with odd kernels and stride 1; (B, *spatial, C) to (B, *spatial, C'), no bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sequence[int]) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel_size)
        self.conv = _CONV[len(kernel_size)](in_channels, out_channels, tuple(kernel_size), padding=padding, bias=False)


class Downsample(_ChannelsLast):
    """Strided convolution: each patch of ``stride`` voxels becomes one; (B, *spatial, C) to (B, *spatial / stride, C').

    The kernel equals the stride, or has odd sizes and is centered, so that the inputs of adjacent voxels overlap.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        padding = tuple(0 if k == s else k // 2 for k, s in zip(kernel_size, stride, strict=True))
        self.conv = _CONV[len(stride)](in_channels, out_channels, tuple(kernel_size), tuple(stride), padding)


class Upsample(_ChannelsLast):
    """Transposed convolution whose kernel equals its stride; (B, *spatial, C) to (B, *spatial · stride, C')."""

    conv: nn.ConvTranspose2d | nn.ConvTranspose3d

    def __init__(self, in_channels: int, out_channels: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.conv = _TRANSPOSED[len(stride)](in_channels, out_channels, tuple(stride), tuple(stride))


def depthwise_convs(channels: int, kernel_size: Sequence[int], count: int) -> nn.Module:
    """Depthwise convolutions in a row; a single one is not wrapped."""
    convs = [DepthwiseConv(channels, kernel_size) for _ in range(count)]
    return convs[0] if count == 1 else nn.Sequential(*convs)


class DepthwiseConv(nn.Module):
    """The input plus its convolution with one odd-sized kernel per channel, stride 1, same size out.

    The sum costs nothing: it is the convolution with kernels that have 1 more at their center.
    """

    identity: Tensor

    def __init__(self, channels: int, kernel_size: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, *kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        bound = 1 / math.sqrt(math.prod(kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        identity = torch.zeros(1, 1, *kernel_size)
        identity[0, 0][tuple(k // 2 for k in kernel_size)] = 1
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns the same shape."""
        return dispatch.depthwise_conv(x, self.weight + self.identity, self.bias)
