"""What the branches that go through the volume in parts (``residual_mlp``, ``residual_mixer``) have in common.

A layer norm is computed with each part. An instance norm, y = s x + t with s and t for each case and channel, is folded
into the linear layer behind it: W y + b = (W diag(s)) x + (W t + b), so that every case has a matrix of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from factorizer_nnunet.network.layers import InstanceNorm


class NormAndLinear(NamedTuple):
    """A linear layer and, unless it is folded in, the layer norm before it."""

    scale: Tensor | None  # (C,), of the layer norm; None where the norm is folded in
    shift: Tensor | None  # (C,)
    eps: float | None
    weight: Tensor  # (1 or B, H, C), for all cases or for each
    bias: Tensor  # (1 or B, H)


def goes_in_parts(x: Tensor, norm: nn.Module) -> bool:
    """Whether parts are implemented for x: on the CPU, in full precision, for these norms, not while compiling."""
    return (
        x.device.type == "cpu"
        and isinstance(norm, InstanceNorm | nn.LayerNorm)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def fold(norm: nn.Module, x: Tensor, weight: Tensor, bias: Tensor) -> NormAndLinear:
    """Norm and linear layer for parts of x: (B, *spatial, C); weight: (H, C), bias: (H,)."""
    if isinstance(norm, nn.LayerNorm):
        return NormAndLinear(norm.weight, norm.bias, norm.eps, weight[None], bias[None])
    factor, offset = norm.scale_and_shift(x)
    return NormAndLinear(None, None, None, weight * factor[:, None], bias + offset @ weight.mT)


def of_case(values: Tensor, case: int) -> Tensor:
    """What belongs to a case; a single entry belongs to all."""
    return values[case if values.shape[0] > 1 else 0]
