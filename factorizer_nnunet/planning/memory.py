"""Memory of a training step of Factorizer, from what its layers keep for the backward pass (``kept``).

A step is walked group by group of layers (stem, stages, merges, losses) in the order of the forward pass. The backward
pass frees them in reverse, so while group i is gone through backward there are

    what groups 1 … i keep, and half-precision copies of their weights  +  what group i needs meanwhile
    +  gradients of the parameters of groups i … n  +  gradients of features that wait at skips and heads
    +  all parameters and AdamW's two moments (12 bytes a parameter)  +  the batch,

and the step's peak is the largest of these sums, or that of AdamW's update. Eager mode is meant: no slabs
(``network.ops.mixer``), no compiled network, which keeps less.

``benchmarks/memory_model.py`` compares estimates with measured peaks; docs/planning.md says how far they hold.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.config import FactorizerConfig
from factorizer_nnunet.planning.activation_memory import (
    FULL,
    HALF,
    KERNELS,
    Kernels,
    Need,
    loss_need,
    merge_need,
    stage_need,
)

GB = 10**9
# Of a target, this much is left to what no model of a step sees: the CUDA context with its libraries and their
# workspaces (0.3 to 0.5 GB), and a share for blocks that the caching allocator holds but cannot use.
RESERVED_BYTES = 0.5 * GB
RESERVED_SHARE = 0.1
_TARGET_BYTES = 4  # of a reference label in the batch


@dataclass(frozen=True)
class Group:
    """Layers that are freed together: bytes for one case, and their parameters."""

    name: str
    need: Need
    parameters: int
    waiting: float  # gradients of features of other groups, for one case, while this one goes backward


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a training step; ``stages`` is what encoder and decoder keep at each stage, highest resolution first."""

    parameters: float  # with gradients, AdamW's moments and half-precision copies, 18 bytes a parameter
    stages: tuple[float, ...]
    loss: float
    step: float  # the largest sum at any moment
    total: float  # with the reserve


def estimate(
    config: FactorizerConfig,
    patch_size: Sequence[int],
    batch_size: int,
    input_channels: int,
    num_classes: int,
    device: str = "cuda",
) -> MemoryEstimate:
    """Memory of a training step with deep supervision, under autocast and in eager mode.

    Args:
        config: the network's settings, which must be modelled (``is_modelled``).
        patch_size: in voxels.
        batch_size: patches in a step.
        input_channels: channels of the image, and of the previous stage's segmentation in a cascade.
        num_classes: channels of the output.
        device: a key of ``activation_memory.KERNELS``.

    Raises:
        ValueError: the settings are not modelled.
    """
    if not is_modelled(config):
        raise ValueError(f"no memory model for rank={config.rank} and start={config.start}")
    kernels = KERNELS[device]
    groups = layer_groups(config, tuple(map(int, patch_size)), input_channels, num_classes, kernels)
    parameters = sum(group.parameters for group in groups)
    always = 3 * FULL * parameters + batch_size * math.prod(patch_size) * (FULL * input_channels + 1.2 * _TARGET_BYTES)
    kept, after, largest = 0.0, parameters, float(parameters * (FULL + kernels.adamw))
    for group in groups:
        kept += batch_size * group.need.kept + HALF * group.parameters
        moment = kept + batch_size * (group.need.meanwhile + group.waiting) + FULL * after
        largest = max(largest, moment)
        after -= group.parameters
    step = always + largest
    return MemoryEstimate(
        parameters=(4 * FULL + HALF) * parameters,
        stages=tuple(
            batch_size * sum(group.need.kept for group in groups if group.name.endswith(f"stage {stage}"))
            for stage in range(config.num_stages)
        ),
        loss=batch_size * sum(group.need.kept for group in groups if group.name.startswith("loss")),
        step=step,
        total=with_reserve(step),
    )


def is_modelled(config: FactorizerConfig) -> bool:
    """Whether the memory of these settings is known.

    A rank above 1 or another start than constant, which our planner never chooses, keeps every iteration of the NMF.
    """
    return config.nmf.supports_block_gram or not any(map(config.has_nmf, range(config.num_stages)))


def with_reserve(step_bytes: float) -> float:
    """Bytes that a GPU must have for a training step of ``step_bytes``."""
    return step_bytes / (1 - RESERVED_SHARE) + RESERVED_BYTES


@functools.lru_cache(maxsize=4096)  # whatever the batch; and a planner asks for the same patches again and again
def layer_groups(
    config: FactorizerConfig, patch_size: tuple[int, ...], input_channels: int, num_classes: int, kernels: Kernels
) -> list[Group]:
    """All groups of layers in the order of the forward pass."""
    sizes = config.stage_sizes(patch_size)
    parameters = _parameters(replace(config, window_sizes=None), input_channels, num_classes)
    last = config.num_stages - 1
    features = [math.prod(size) * width * HALF for size, width in zip(sizes, config.features_per_stage, strict=True)]
    stem = Need(math.prod(sizes[0]) * input_channels * HALF, math.prod(sizes[0]) * input_channels * FULL)
    groups = [Group("stem, stage 0", stem, parameters.stem, 0)]
    for stage, size in enumerate(sizes):
        need = stage_need(config, stage, size, config.n_blocks_per_stage[stage], kernels)
        waiting = sum(features[: min(stage + 1, last)])  # the skips' gradients
        groups.append(Group(f"encoder, stage {stage}", need, parameters.encoder[stage], waiting))
    for stage in reversed(range(last)):
        size = sizes[stage]
        waiting = sum(features[stage + 1 : last]) + sum(features[:stage])  # from heads below, at skips above
        merge = merge_need(config, stage, size)
        groups.append(Group(f"merge, stage {stage}", merge, parameters.merges[stage], waiting))
        need = stage_need(config, stage, size, config.n_blocks_per_stage_decoder[stage], kernels)
        groups.append(Group(f"decoder, stage {stage}", need, parameters.decoder[stage], waiting))
    # nnU-Net gives the output of the lowest resolution no weight in the loss, so that it leaves only logits.
    for stage in range(max(1, last)):
        loss = loss_need(num_classes, sizes[stage], kernels)
        if 0 < stage == last - 1:
            loss = Need(math.prod(sizes[stage]) * num_classes * HALF, 0)
        groups.append(Group(f"loss {stage}", loss, parameters.heads[stage], 0))
    return groups


@dataclass(frozen=True)
class _Parameters:
    """Numbers of parameters by group of layers; tuples by stage."""

    stem: int
    encoder: tuple[int, ...]  # with what leads into the stage
    merges: tuple[int, ...]
    decoder: tuple[int, ...]
    heads: tuple[int, ...]


@functools.lru_cache(maxsize=512)
def _parameters(config: FactorizerConfig, input_channels: int, num_classes: int) -> _Parameters:
    """Counted on the network itself, built without memory; windows do not matter to it."""
    with torch.device("meta"):
        network = Factorizer.from_config(config, input_channels, num_classes)
    encoder, decoder = network.encoder, network.decoder
    return _Parameters(
        stem=_count([encoder.stem, encoder.position]),
        encoder=tuple(
            _count([stage, *encoder.downsamples[max(0, index - 1) : index]])
            for index, stage in enumerate(encoder.stages)
        ),
        merges=tuple(_count(pair) for pair in zip(decoder.upsamples, decoder.adapters, strict=True)),
        decoder=tuple(_count([stage]) for stage in decoder.stages),
        heads=tuple(_count([head]) for head in decoder.seg_layers),
    )


def _count(modules: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
