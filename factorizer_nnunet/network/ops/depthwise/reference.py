"""Depthwise convolution by PyTorch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from factorizer_nnunet.network.layout import channels_first, channels_last

_CONV = {2: F.conv2d, 3: F.conv3d}


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise convolution, stride 1, same size out.

    x: (B, *spatial, C); weight: (C, 1, *kernel), odd sizes; bias: (C,); returns the shape of x.
    """
    return channels_last(convolve_channels(channels_first(x), weight, bias))


def convolve_channels(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same for x: (B, C, *spatial)."""
    padding = tuple(k // 2 for k in weight.shape[2:])
    return _CONV[x.ndim - 2](x, weight, bias, padding=padding, groups=x.shape[1])
