"""The residual MLP branch, layer by layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def residual_mlp(x: Tensor, norm: nn.Module, expand: nn.Linear, contract: nn.Linear) -> Tensor:
    """x + contract(gelu(expand(norm(x)))); x: (B, *spatial, C), same shape out."""
    return x + contract(F.gelu(expand(norm(x))))
