"""One residual block of Factorizer, on channels-last tensors (B, *spatial, C)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from factorizer_nnunet.network.layers import DepthwiseConv, build_norm
from factorizer_nnunet.network.mixer import NMFMixer


class MLP(nn.Module):
    """Linear, GELU, Linear, voxel by voxel."""

    def __init__(self, channels: int, ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = max(1, round(channels * ratio))
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.contract(self.dropout(F.gelu(self.expand(x)))))


class DropPath(nn.Module):
    """Stochastic depth: in training, a branch is left out for a case with this probability (arXiv 1603.09382)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return branch
        keep = 1 - self.probability
        kept = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device) < keep
        return branch * kept / keep


class FactorizerBlock(nn.Module):
    """Neighbours (depthwise convolution, optional), context (NMF), channels (MLP), each added to its input."""

    def __init__(
        self,
        channels: int,
        *,
        norm: str,
        mixer: NMFMixer,
        mlp_ratio: float,
        depthwise_kernel: Sequence[int] | None,
        dropout: float,
        drop_path: float,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.depthwise = None if depthwise_kernel is None else DepthwiseConv(channels, depthwise_kernel)
        self.norm1 = build_norm(norm, channels)
        self.mixer = mixer
        self.norm2 = build_norm(norm, channels)
        self.mlp = MLP(channels, mlp_ratio, dropout)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)
        self.checkpointing = checkpointing

    def forward(self, x: Tensor) -> Tensor:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        if self.depthwise is not None:
            x = x + self.depthwise(x)
        x = x + self.drop_path(self.dropout(self.mixer(self.norm1(x))))
        return x + self.drop_path(self.mlp(self.norm2(x)))
