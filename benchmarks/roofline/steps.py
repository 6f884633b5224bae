"""The parts of a block at the highest resolution, as published and after each change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.speed.literal import LiteralBlock, LiteralFactorizer
from factorizer_nnunet.network import Factorizer, preset_arguments
from factorizer_nnunet.network.residual_mixer import residual_mixer
from factorizer_nnunet.network.residual_mlp import residual_mlp
from factorizer_nnunet.network.skip_merge import upsample_and_adapt

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Step:
    """One way to compute a part; ``inputs`` are channels last, or channels first where the function takes them so."""

    part: str
    change: str  # against the step before
    function: Function
    inputs: tuple[Tensor, ...]
    weights: tuple[nn.Module, ...]  # whose gradients a training step forms, too


def steps(side: int, batch: int) -> list[Step]:
    """All parts of the published form at ``side``³ voxels and the width of the first stage.

    The steps of a part follow each other, from the published algorithm on, and give the same numbers.
    """
    torch.manual_seed(0)
    result = []
    for part, shifts in (("NMF, two shifts", [0.0, 0.5]), ("NMF, four shifts", [0.0, 0.25, 0.5, 0.75])):
        result += _mixer_steps(part, _network(side, shifts), side, batch)
    network = _network(side, [0.0, 0.5])
    return result + _mlp_steps(network, side, batch) + _skip_steps(network, side, batch)


def _network(side: int, shifts: list[float]) -> Factorizer:
    size = [side] * 3
    return Factorizer(4, 4, **{**preset_arguments("swin", size), "shifts": shifts})


def _literal_block(network: Factorizer, side: int) -> LiteralBlock:
    return LiteralFactorizer(network, [side] * 3).down[0][0]


def _volume(batch: int, side: int, channels: int) -> Tensor:
    return torch.randn(batch, side, side, side, channels)


def _mixer_steps(part: str, network: Factorizer, side: int, batch: int) -> list[Step]:
    block, literal = network.encoder.stages[0][0], _literal_block(network, side)
    x = _volume(batch, side, network.config.features_per_stage[0])
    modules = (block.norm1, block.mixer)
    return [
        Step(part, "as published", literal.mix, (x.movedim(-1, 1).contiguous(),), modules),
        Step(part, "Gram matrices of blocks", lambda x: x + block.mixer(block.norm1(x)), (x,), modules),
        Step(part, "in slabs", lambda x: residual_mixer(x, block.norm1, block.mixer), (x,), modules),
    ]


def _mlp_steps(network: Factorizer, side: int, batch: int) -> list[Step]:
    block, literal = network.encoder.stages[0][0], _literal_block(network, side)
    x = _volume(batch, side, network.config.features_per_stage[0])
    modules, mlp = (block.norm2, block.mlp), block.mlp
    return [
        Step("MLP", "as published", literal.mlp, (x.movedim(-1, 1).contiguous(),), modules),
        Step("MLP", "channels last", lambda x: x + mlp(block.norm2(x)), (x,), modules),
        Step("MLP", "in slices", lambda x: residual_mlp(x, block.norm2, mlp.expand, mlp.contract), (x,), modules),
    ]


def _skip_steps(network: Factorizer, side: int, batch: int) -> list[Step]:
    decoder, widths = network.decoder, network.config.features_per_stage
    up, adapter = decoder.upsamples[0], decoder.adapters[0]
    skip, low = _volume(batch, side, widths[0]), _volume(batch, side // 2, widths[1])
    first = (skip.movedim(-1, 1).contiguous(), low.movedim(-1, 1).contiguous())
    weight = adapter.weight[..., None, None, None]

    def published(skip: Tensor, low: Tensor) -> Tensor:
        return nn.functional.conv3d(torch.cat((skip, up.conv(low)), 1), weight)

    def last(skip: Tensor, low: Tensor) -> Tensor:
        return adapter(torch.cat((skip, up(low)), -1))

    return [
        Step("up, skip, adapter", "as published", published, first, (up, adapter)),
        Step("up, skip, adapter", "channels last", last, (skip, low), (up, adapter)),
        Step(
            "up, skip, adapter",
            "two products, no concatenation",
            lambda skip, low: upsample_and_adapt(skip, low, up, adapter),
            (skip, low),
            (up, adapter),
        ),
    ]
