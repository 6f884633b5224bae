"""Instance norm by PyTorch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from factorizer_nnunet.network.layout import channels_first, channels_last


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalize each channel of each case over space, then scale and shift (Ulyanov et al., arXiv 1607.08022).

    x: (B, *spatial, C); weight, bias: (C,); returns the shape of x. One group per channel: unlike PyTorch's instance
    norm, its group norm works on channels-last storage.
    """
    return channels_last(F.group_norm(channels_first(x), x.shape[-1], weight, bias, eps))


def scale_and_shift(moments: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """An instance norm as one factor and one offset per case and channel, (B, C) each, from ``channel_moments``."""
    mean, variance = moments
    scale = weight * (variance + eps).rsqrt()
    return scale, bias - mean * scale
