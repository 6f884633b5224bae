"""The places in a network that hold an NMF, under names that say where they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network.blocks import FactorizerBlock
from factorizer_nnunet.network.factorizer import Factorizer


@dataclass(frozen=True)
class Site:
    """One block with an NMF.

    Attributes:
        name: such as ``encoder-3``; stages are counted from 1, the highest resolution, in encoder and decoder.
            Where a stage has several blocks, ``encoder-3-block-2``.
        stride: voxels of the network's input per voxel of the stage, per axis.
        block: the module.
    """

    name: str
    stride: tuple[int, ...]
    block: FactorizerBlock

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.block.mixer.head_dim

    @property
    def num_heads(self) -> int:
        return self.block.mixer.in_proj.out_features // self.head_dim

    @property
    def rank(self) -> int:
        """Components of one head."""
        return self.block.mixer.nmf.rank


@dataclass(frozen=True)
class Component:
    """One column of one head's factors.

    Attributes:
        site: name of its block.
        head, column: counted from 1; a network of rank 1 has column 1 alone.
        channels: of the stage's hidden features that its head factorises, counted from 0, the last one excluded.
    """

    site: str
    head: int
    column: int
    channels: tuple[int, int]
    of_rank_one: bool = True

    @property
    def name(self) -> str:
        """Such as ``encoder-3_head-07``, with ``_column-2`` where heads have several."""
        return f"{self.site}_head-{self.head:02d}" + ("" if self.of_rank_one else f"_column-{self.column}")


def find_sites(network: nn.Module, model: Path) -> list[Site]:
    """All blocks with an NMF, the encoder's first, each from the highest resolution on.

    Args:
        network: as nnU-Net built it.
        model: its folder, for messages.

    Raises:
        UserError: it is no Factorizer.
    """
    if not isinstance(network, Factorizer):
        raise UserError(
            f"{model} holds a {type(network).__name__}, and only a Factorizer has components to explain. Name with -m "
            "a model of nnUNetTrainerFactorizer, or of plans that name our network"
        )
    sites = [*_sites("encoder", network.encoder.stages, network), *_sites("decoder", network.decoder.stages, network)]
    if not sites:
        raise UserError(f"the network of {model} has no NMF in any stage (nmf_stages in its plans): nothing to explain")
    return sites


def choose_sites(sites: Sequence[Site], wanted: Sequence[str]) -> list[Site]:
    """Sites whose name, or that of their stage, is wanted; all if nothing is.

    Raises:
        UserError: a name that fits none, with those that are there.
    """
    chosen = []
    for name in wanted:
        fitting = [site for site in sites if site.name == name or site.name.startswith(f"{name}-block-")]
        if not fitting:
            there = ", ".join(site.name for site in sites)
            raise UserError(f"--stage {name}: no NMF there. The model has it in {there}")
        chosen += fitting
    return [site for site in sites if not wanted or site in chosen]


def check_heads(sites: Sequence[Site], heads: Sequence[int]) -> None:
    """Check that every site has these heads, counted from 1.

    Raises:
        UserError: one has not.
    """
    for site in sites:
        missing = [head for head in heads if not 1 <= head <= site.num_heads]
        if missing:
            raise UserError(f"--head {missing[0]}: {site.name} has the heads 1 to {site.num_heads}")


def components(site: Site, heads: Sequence[int] = ()) -> list[Component]:
    """Components of a site in the order of its maps, of all heads or of some."""
    width = site.head_dim
    return [
        Component(site.name, head, column, ((head - 1) * width, head * width), site.rank == 1)
        for head in (heads or range(1, site.num_heads + 1))
        for column in range(1, site.rank + 1)
    ]


def _sites(part: str, stages: nn.ModuleList, network: Factorizer) -> Iterator[Site]:
    strides = network.config.strides
    for index, stage in enumerate(stages):
        stride = tuple(math.prod(axis) for axis in zip(*strides[: index + 1], strict=True))
        for number, block in enumerate(stage, 1):
            if block.mixer is not None:
                suffix = f"-block-{number}" if len(stage) > 1 else ""
                yield Site(f"{part}-{index + 1}{suffix}", stride, block)
