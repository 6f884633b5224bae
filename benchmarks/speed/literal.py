"""The published network as its formulas read: the slow reference that the fast path is measured against.

Channels first; every shift copies the volume, rolls it and cuts it into matrices; HALS iterates over complete
matrices. With the weights of a ``Factorizer`` in the published form it computes the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from factorizer_nnunet.network import Factorizer

_EPS = 1e-16  # as published


def hals_rank_one(x: Tensor, num_iters: int) -> Tensor:
    """x: (n, d, N) nonnegative; returns U Vᵀ after ``num_iters`` updates of U, then V, from V = 1."""
    v = x.new_ones(x.shape[0], x.shape[2], 1)
    for _ in range(num_iters):
        u = torch.relu(x @ v) / (v.mT @ v + _EPS)
        v = torch.relu(x.mT @ u) / (u.mT @ u + _EPS)
    return u @ v.mT


def matricize(x: Tensor, head_dim: int, window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """(B, C, *spatial) to (B * heads * windows, head_dim, voxels of a window), windows moved back by ``shift``."""
    ndim = x.ndim - 2
    x = torch.roll(x, list(shift), list(range(2, x.ndim)))
    split = [x.shape[0], x.shape[1] // head_dim, head_dim]
    for size, length in zip(x.shape[2:], window, strict=True):
        split += [size // length, length]
    counts, voxels = [3 + 2 * i for i in range(ndim)], [4 + 2 * i for i in range(ndim)]
    return x.reshape(split).permute(0, 1, *counts, 2, *voxels).flatten(0, ndim + 1).flatten(2)


def unmatricize(matrices: Tensor, size: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """The inverse of ``matricize``; ``size`` is (B, C, *spatial)."""
    ndim = len(window)
    counts = [s // w for s, w in zip(size[2:], window, strict=True)]
    x = matrices.reshape(size[0], -1, *counts, matrices.shape[1], *window)
    order = [0, 1, 2 + ndim]
    for i in range(ndim):
        order += [2 + i, 3 + ndim + i]
    return torch.roll(x.permute(order).reshape(*size), [-s for s in shift], list(range(2, len(size))))


class LiteralBlock(nn.Module):
    """LayerNorm, projection, NMF of every shift, projection; LayerNorm, MLP; each added to its input."""

    def __init__(self, network: Factorizer, stage: int, block: nn.Module) -> None:
        super().__init__()
        config = network.config
        self.parts = block
        self.head_dim = config.stage_head_dim(stage)
        self.window = config.stage_window(stage)
        self.shifts = config.shifts
        self.num_iters = config.num_iters

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.mix(x))

    def mix(self, x: Tensor) -> Tensor:
        """x + projected NMF, averaged over shifts."""
        mixer = self.parts.mixer
        y = F.relu(_pointwise(mixer.in_proj, _layer_norm(self.parts.norm1, x)))
        window = [s if w is None else min(s, w) for s, w in zip(y.shape[2:], self.window, strict=True)]
        mixed = []
        for shift in self.shifts:
            steps = [-round(shift * w) % w for w in window]
            low_rank = hals_rank_one(matricize(y, self.head_dim, window, steps), self.num_iters)
            mixed.append(unmatricize(low_rank, y.shape, window, steps))
        return x + _pointwise(mixer.out_proj, torch.stack(mixed).mean(0))

    def mlp(self, x: Tensor) -> Tensor:
        """x + MLP(norm(x))."""
        mlp = self.parts.mlp
        return x + _pointwise(mlp.contract, F.gelu(_pointwise(mlp.expand, _layer_norm(self.parts.norm2, x))))


class LiteralFactorizer(nn.Module):
    """The published form, slowly; built around a ``Factorizer`` whose weights it uses.

    Raises:
        ValueError: the network is not of the published form, or a window does not divide its stage.
    """

    def __init__(self, network: Factorizer, patch_size: Sequence[int]) -> None:
        super().__init__()
        config = network.config
        published = config.norm == "layer" and config.depthwise == "none" and config.adapter == "pointwise"
        if not published or config.border != "cyclic" or config.rank != 1 or config.start != "constant":
            raise ValueError("the network is not of the published form with rank 1")
        size = list(patch_size)
        for stage, stride in enumerate(config.strides):
            size = [s // t for s, t in zip(size, stride, strict=True)]
            if any(w is not None and s > w and s % w for s, w in zip(size, config.stage_window(stage), strict=True)):
                raise ValueError(
                    f"windows of {config.stage_window(stage)} do not divide the {size} voxels of stage {stage}"
                )
        self.network = network
        self.down = nn.ModuleList(
            nn.ModuleList(LiteralBlock(network, s, block) for block in blocks)
            for s, blocks in enumerate(network.encoder.stages)
        )
        self.up = nn.ModuleList(
            nn.ModuleList(LiteralBlock(network, s, block) for block in blocks)
            for s, blocks in enumerate(network.decoder.stages)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, input_channels, *patch); returns logits (B, classes, *patch)."""
        encoder, decoder = self.network.encoder, self.network.decoder
        x = encoder.stem.conv(x)
        features = []
        for stage, blocks in enumerate(self.down):
            x = encoder.downsamples[stage - 1].conv(x) if stage else x
            if stage == len(self.down) - 1:
                x = encoder.position(x.movedim(1, -1)).movedim(-1, 1)
            for block in blocks:
                x = block(x)
            features.append(x)
        for stage in reversed(range(len(self.up))):
            x = torch.cat((features[stage], decoder.upsamples[stage].conv(x)), 1)
            x = _pointwise(decoder.adapters[stage], x)
            for block in self.up[stage]:
                x = block(x)
        return _pointwise(decoder.seg_layers[0], x)


def _pointwise(linear: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer over the channels of (B, C, *spatial), as a convolution with kernel 1."""
    weight = linear.weight.reshape(*linear.weight.shape, *[1] * (x.ndim - 2))
    return (F.conv2d if x.ndim == 4 else F.conv3d)(x, weight, linear.bias)


def _layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return norm(x.movedim(1, -1)).movedim(-1, 1)
