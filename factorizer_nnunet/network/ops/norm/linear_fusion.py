"""A norm fused with the linear layer that follows it, for operations that take a volume a slice at a time.

A layer norm is computed with each slice. An instance norm, y = s x + t with s and t for each case and channel, is
folded into the linear layer: W y + b = (W diag(s)) x + (W t + b), so that every case has its own matrix.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class FoldableNorm(nn.Module):
    """Base class of norms that, for a given x, scale and shift each channel of each case."""

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Factor and offset for each case and channel, (B, C) each; x: (B, *spatial, C)."""
        raise NotImplementedError


FusableNorm = FoldableNorm | nn.LayerNorm  # the norms that the fused operations take


def fold_scale_and_shift(norm: FusableNorm, x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Scale, shift and ε of a layer norm, (1, C) each; or scale and shift of a foldable norm for x, (B, C), and -1.

    x: (B, *spatial, C).
    """
    if isinstance(norm, nn.LayerNorm):
        return norm.weight[None], norm.bias[None], norm.eps
    scale, shift = norm.scale_and_shift(x)
    return scale, shift, -1.0


def norm_and_linear(
    voxels: Tensor, case: int, eps: float, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """The norm of ``fold_scale_and_shift``, then a linear layer, for voxels (n, C) of a case; returns (n, H)."""
    if eps >= 0:
        return F.linear(F.layer_norm(voxels, scale.shape[1:], scale[0], shift[0], eps), weight, bias)
    offset = weight @ shift[case]
    return F.linear(voxels, weight * scale[case], offset if bias is None else offset + bias)
