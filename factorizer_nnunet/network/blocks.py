"""One residual block of Factorizer, on channels-last tensors (B, *spatial, C)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from factorizer_nnunet.network.layers import depthwise_convs
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.norms import build_norm
from factorizer_nnunet.network.ops.dispatch import normed_mixer, residual_mlp


class MLP(nn.Module):
    """Linear, GELU, Linear, voxel by voxel; before the GELU ``num_convs`` residual depthwise convolutions in a row."""

    def __init__(
        self, channels: int, ratio: float, dropout: float, kernel_size: Sequence[int] = (), num_convs: int = 0
    ) -> None:
        super().__init__()
        self.hidden = hidden = max(1, round(channels * ratio))
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = depthwise_convs(hidden, kernel_size, num_convs) if num_convs else None
        self.contract = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns the same shape."""
        x = self.expand(x)
        if self.depthwise is not None:
            x = self.depthwise(x)
        return self.dropout(self.contract(self.dropout(F.gelu(x))))


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a branch for a case with this probability (arXiv 1603.09382)."""

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
    """Depthwise convolutions, mixing of context (NMF), mixing of channels (MLP), each added to its input.

    ``depthwise`` is one of ``config_values.DEPTHWISE``, with ``num_convs`` kernels of ``kernel_size`` in a row; a block
    without a ``mixer`` mixes no context. With ``gates``, the mixer's output is not added: its sigmoid, doubled, scales
    the input, and an output of 0 changes nothing, either.
    """

    def __init__(
        self,
        channels: int,
        *,
        norm: str,
        mixer: NMFMixer | None,
        gates: bool,
        mlp_ratio: float,
        depthwise: str,
        kernel_size: Sequence[int],
        num_convs: int,
        dropout: float,
        drop_path: float,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.depthwise = depthwise_convs(channels, kernel_size, num_convs) if depthwise == "entry" else None
        self.norm1 = None if mixer is None else build_norm(norm, channels)
        self.mixer = mixer
        self.gates = gates
        self.norm2 = build_norm(norm, channels)
        self.mlp = MLP(channels, mlp_ratio, dropout, kernel_size, num_convs if depthwise == "mlp" else 0)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)
        self.checkpointing = checkpointing

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """x: (B, *spatial, C); returns the same shape.

        ``overwrite`` allows x to be overwritten in inference on the CPU, where allocating a volume is slow.
        """
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(self._forward, x, False, use_reentrant=False)
        return self._forward(x, overwrite)

    def mixer_input(self, x: Tensor) -> Tensor:
        """What the block's mixer receives when the block receives x; both (B, *spatial, C).

        Forward hooks on the mixer are not a substitute: fused implementations never call it.

        Raises:
            ValueError: the block has no mixer.
        """
        if self.norm1 is None:
            raise ValueError("this block has no mixer (nmf_stages is false for its stage)")
        return self.norm1(x if self.depthwise is None else self.depthwise(x))

    def _forward(self, x: Tensor, overwrite: bool) -> Tensor:
        if self.depthwise is not None:
            x, overwrite = self.depthwise(x), True
        drops = self.training and not self.dropout.p == self.drop_path.probability == 0
        if self.mixer is not None and self.norm1 is not None:
            residual = not (drops or self.gates)
            mixed = normed_mixer(x, self.norm1, self.mixer, residual=residual)
            if drops:
                mixed = self.drop_path(self.dropout(mixed))
            if self.gates:
                x = 2 * (x * mixed.sigmoid())  # in this order, autograd keeps x and the sigmoid alone
            elif residual:
                x = mixed
            else:
                x = x + mixed
            overwrite = True  # x now belongs to the block
        if drops or self.mlp.depthwise is not None:
            return x + self.drop_path(self.mlp(self.norm2(x)))
        return residual_mlp(x, self.norm2, self.mlp.expand, self.mlp.contract, overwrite)


class Stage(nn.Sequential):
    """Blocks one after the other. The stage owns its input and may overwrite it in inference."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns the same shape."""
        for block in self:
            x = block(x, overwrite=True)
        return x
