"""The NMF layers of a network and their components, under names that say where they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network.blocks import FactorizerBlock
from factorizer_nnunet.network.factorizer import Factorizer
from factorizer_nnunet.network.mixer import NMFMixer


@dataclass(frozen=True)
class Component:
    """One column of the factors of one head."""

    layer: str  # name of its NMF layer
    head: int  # counted from 1; a layer of rank 1 only has column 1
    column: int
    channels: tuple[int, int]  # of the layer's hidden channels: the head's first and its last + 1, counted from 0
    of_rank_one: bool = True

    @property
    def name(self) -> str:
        """Such as ``encoder-3_head-07``, with ``_column-2`` if the rank is above 1."""
        return f"{self.layer}_head-{self.head:02d}" + ("" if self.of_rank_one else f"_column-{self.column}")


@dataclass(frozen=True)
class NMFLayer:
    """One block of the network that has an NMF; stages are counted from 1, the highest resolution, on both sides."""

    name: str  # such as encoder-3, or encoder-3-block-2 if a stage has several blocks
    stride: tuple[int, ...]  # voxels of the network's input per voxel of the stage, per axis
    block: FactorizerBlock
    mixer: NMFMixer

    def components(self, heads: Sequence[int] = ()) -> list[Component]:
        """Components of the given heads, of all heads by default, in the order of the layer's maps."""
        width, rank = self.mixer.head_dim, self.mixer.nmf.rank
        return [
            Component(self.name, head, column, ((head - 1) * width, head * width), rank == 1)
            for head in (dict.fromkeys(heads) or range(1, self.mixer.num_heads + 1))
            for column in range(1, rank + 1)
        ]


def find_layers(network: nn.Module, model: Path) -> list[NMFLayer]:
    """Return all NMF layers, the encoder's first, each part from the highest resolution down.

    Raises:
        UserError: the network is not a Factorizer or has no NMF.
    """
    if not isinstance(network, Factorizer):
        raise UserError(
            f"{model} contains a {type(network).__name__}, but only a Factorizer has components to explain. Choose "
            "with -m a model that was trained with nnUNetTrainerFactorizer or with our plans"
        )
    parts = {"encoder": network.encoder.stages, "decoder": network.decoder.stages}
    layers = [layer for part, stages in parts.items() for layer in _layers(part, stages, network)]
    if not layers:
        raise UserError(f"the network of {model} has no NMF in any stage (nmf_stages in its plans): nothing to explain")
    return layers


def select_layers(layers: Sequence[NMFLayer], names: Sequence[str]) -> list[NMFLayer]:
    """Return the layers with the given names, or of the given stages; all layers if no name is given.

    Raises:
        UserError: a name fits no layer.
    """
    selected = []
    for name in names:
        fitting = [layer for layer in layers if layer.name == name or layer.name.startswith(f"{name}-block-")]
        if not fitting:
            known = ", ".join(layer.name for layer in layers)
            raise UserError(f"--stage {name}: this stage has no NMF. Stages with an NMF: {known}")
        selected += fitting
    return [layer for layer in layers if not names or layer in selected]


def check_heads(layers: Sequence[NMFLayer], heads: Sequence[int]) -> None:
    """Check that every layer has these heads, counted from 1.

    Raises:
        UserError: a layer lacks one.
    """
    for layer in layers:
        for head in heads:
            if not 1 <= head <= layer.mixer.num_heads:
                raise UserError(f"--head {head}: {layer.name} has heads 1 to {layer.mixer.num_heads}")


def _layers(part: str, stages: nn.ModuleList, network: Factorizer) -> Iterator[NMFLayer]:
    strides = network.config.strides
    for index, stage in enumerate(stages):
        stride = tuple(math.prod(axis) for axis in zip(*strides[: index + 1], strict=True))
        blocks = [block for block in stage.children() if isinstance(block, FactorizerBlock)]
        for number, block in enumerate(blocks, 1):
            if block.mixer is not None:
                suffix = f"-block-{number}" if len(blocks) > 1 else ""
                yield NMFLayer(f"{part}-{index + 1}{suffix}", stride, block, block.mixer)
