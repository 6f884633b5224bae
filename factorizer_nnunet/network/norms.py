"""Norms over the channels of channels-last tensors (B, *spatial, C), by the name that plans give them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from factorizer_nnunet.network.ops import dispatch
from factorizer_nnunet.network.ops.norm.linear_fusion import FoldableNorm
from factorizer_nnunet.network.ops.norm.reference import scale_and_shift


class InstanceNorm(FoldableNorm):
    """Normalize each channel of each case over space, then scale and shift (Ulyanov et al., arXiv 1607.08022)."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns the same shape."""
        return dispatch.instance_norm(x, self.weight, self.bias, self.eps)

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The norm of x as one factor and one offset for each case and channel, (B, C) each; x: (B, *spatial, C)."""
        return scale_and_shift(dispatch.channel_moments(x), self.weight, self.bias, self.eps)


NORMS: dict[str, type[nn.Module]] = {"instance": InstanceNorm, "layer": nn.LayerNorm, "rms": nn.RMSNorm}


def build_norm(name: str, channels: int) -> nn.Module:
    """The norm called ``name`` in ``NORMS``, over (B, *spatial, channels)."""
    return NORMS[name](channels)
