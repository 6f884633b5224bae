"""Memory of a training step of Factorizer, from what its layers keep for the backward pass (``activation_memory``).

The model goes through groups of layers (stem, stages, merges, losses) in the order of the forward pass. The backward
pass frees them in reverse order. During the backward pass of group i, memory is used by

    activations kept by groups 1 … i, with half-precision copies of their weights  +  temporary memory of group i
    +  gradients of the parameters of groups i … n  +  gradients of features waiting at skips and heads
    +  all parameters and AdamW's two moments (12 bytes per parameter)  +  the batch,

and the peak of the step is the largest of these sums, or that of AdamW's update. This is eager mode without processing
volumes in parts; a compiled network keeps less.

``benchmarks/memory_model.py`` compares estimates with measured peaks; docs/planning.md gives their accuracy.
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
    PRECISIONS,
    Need,
    Precision,
    loss_need,
    merge_need,
    stage_need,
)

GB = 10**9
# Reserved for memory outside the model: the CUDA context with its libraries and their workspaces (0.3 to 0.5 GB), and
# a share of the total for blocks that the caching allocator has but cannot use.
RESERVED_BYTES = 0.5 * GB
RESERVED_SHARE = 0.1
_TARGET_BYTES = 4  # per voxel of a reference label in the batch


@dataclass(frozen=True)
class Group:
    """Layers that are freed together: bytes per case and number of parameters."""

    name: str
    need: Need
    parameters: int
    waiting: float  # bytes per case of gradients of other groups' features during the backward pass of this one


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a training step; ``stages``: kept by encoder and decoder at each stage, highest resolution first."""

    parameters: float  # with gradients, AdamW's moments and half-precision copies, 18 bytes per parameter
    stages: tuple[float, ...]
    loss: float
    step: float  # the peak
    total: float  # including the reserve


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
        device: a key of ``activation_memory.PRECISIONS``.

    Raises:
        ValueError: the settings are not modelled.
    """
    if not is_modelled(config):
        raise ValueError(f"no memory model for rank={config.rank} and start={config.start}")
    precision = PRECISIONS[device]
    groups = layer_groups(config, tuple(map(int, patch_size)), input_channels, num_classes, precision)
    parameters = sum(group.parameters for group in groups)
    always = 3 * FULL * parameters + batch_size * math.prod(patch_size) * (FULL * input_channels + 1.2 * _TARGET_BYTES)
    kept, after, largest = 0.0, parameters, float(parameters * (FULL + precision.adamw))
    for group in groups:
        kept += batch_size * group.need.kept + HALF * group.parameters
        moment = kept + batch_size * (group.need.temporary + group.waiting) + FULL * after
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


@functools.lru_cache(maxsize=4096)  # the planner asks for the same patches many times, with other batch sizes
def layer_groups(
    config: FactorizerConfig, patch_size: tuple[int, ...], input_channels: int, num_classes: int, precision: Precision
) -> list[Group]:
    """All groups of layers in the order of the forward pass."""
    sizes = config.stage_sizes(patch_size)
    parameters = _parameters(replace(config, window_sizes=None), input_channels, num_classes)
    last = config.num_stages - 1
    features = [math.prod(size) * width * HALF for size, width in zip(sizes, config.features_per_stage, strict=True)]
    stem = Need(math.prod(sizes[0]) * input_channels * HALF, math.prod(sizes[0]) * input_channels * FULL)
    groups = [Group("stem, stage 0", stem, parameters.stem, 0)]
    for stage, size in enumerate(sizes):
        need = stage_need(config, stage, size, config.n_blocks_per_stage[stage], precision)
        waiting = sum(features[: min(stage + 1, last)])  # gradients at the skips
        groups.append(Group(f"encoder, stage {stage}", need, parameters.encoder[stage], waiting))
    for stage in reversed(range(last)):
        size = sizes[stage]
        waiting = sum(features[stage + 1 : last]) + sum(features[:stage])  # at lower heads and higher skips
        merge = merge_need(config, stage, size)
        groups.append(Group(f"merge, stage {stage}", merge, parameters.merges[stage], waiting))
        need = stage_need(config, stage, size, config.n_blocks_per_stage_decoder[stage], precision)
        groups.append(Group(f"decoder, stage {stage}", need, parameters.decoder[stage], waiting))
    # The loss weight of the lowest resolution is 0 in nnU-Net, so it keeps only logits.
    for stage in range(max(1, last)):
        loss = loss_need(num_classes, sizes[stage], precision)
        if 0 < stage == last - 1:
            loss = Need(math.prod(sizes[stage]) * num_classes * HALF, 0)
        groups.append(Group(f"loss {stage}", loss, parameters.heads[stage], 0))
    return groups


@dataclass(frozen=True)
class _Parameters:
    """Numbers of parameters per group of layers; tuples have one entry per stage."""

    stem: int
    encoder: tuple[int, ...]  # including the downsampling into the stage
    merges: tuple[int, ...]
    decoder: tuple[int, ...]
    heads: tuple[int, ...]


@functools.lru_cache(maxsize=512)
def _parameters(config: FactorizerConfig, input_channels: int, num_classes: int) -> _Parameters:
    """Count the parameters of the network itself, built without memory; windows have no influence."""
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
