"""One residual block of Factorizer, on channels-last tensors (B, *spatial, C)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from factorizer_nnunet.network.gram import mix_rank_one
from factorizer_nnunet.network.layers import DepthwiseConv, build_norm
from factorizer_nnunet.network.windows import shift_steps, window_grid


class NMFMixer(nn.Module):
    """Project, make nonnegative, replace each window by its NMF, project back (arXiv 2202.12295, section 3)."""

    def __init__(
        self, channels: int, head_dim: int, window_size: Sequence[int], shifts: Sequence[float], num_iters: int
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.window_size = tuple(window_size)
        self.parts, self.steps = shift_steps(shifts)
        self.num_iters = num_iters
        self.in_proj = nn.Linear(channels, channels, bias=False)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        grid = window_grid(x.shape[1:-1], self.window_size, self.parts, self.steps)
        return self.out_proj(mix_rank_one(F.relu(self.in_proj(x)), grid, self.head_dim, self.num_iters))


class MLP(nn.Module):
    """Linear, GELU, Linear, voxel by voxel."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = max(1, round(channels * ratio))
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x)))


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
    ) -> None:
        super().__init__()
        self.depthwise = None if depthwise_kernel is None else DepthwiseConv(channels, depthwise_kernel)
        self.norm1 = build_norm(norm, channels)
        self.mixer = mixer
        self.norm2 = build_norm(norm, channels)
        self.mlp = MLP(channels, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        if self.depthwise is not None:
            x = x + self.depthwise(x)
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))
