"""Memory that Factorizer's layers keep for the backward pass under autocast, and need temporarily during it.

All numbers are bytes for one case. Features are in half precision (2 bytes), the small matrices of the NMF in float32.
What norms and losses keep depends on where autocast uses half precision, which differs between devices (``Precision``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from factorizer_nnunet.network.config import FactorizerConfig
from factorizer_nnunet.network.mixer import MIN_BLOCK_VOXELS
from factorizer_nnunet.network.ops.mixer.gram import heads_per_group
from factorizer_nnunet.network.windows import Family, axis_shifts, families, window_grid

HALF, FULL, LONG = 2, 4, 8  # bytes of a number in half precision, in float32, and of an index


@dataclass(frozen=True)
class Precision:
    """What a device's autocast and optimizer keep.

    Attributes:
        norm: bytes per number kept by a norm. On CUDA, autocast runs norms in float32, on a copy of the features.
        softmax: bytes per number of the probabilities in the Dice loss; on CUDA with one more copy of the logits.
        loss_gradients: float32 copies of the logits during the backward pass of the losses. On CUDA those of Dice, of
            both softmaxes and their sum; two underestimated 100 classes on an H100 by a seventh.
        adamw: temporary bytes per parameter in AdamW's update; on CUDA it updates all parameters at once.
    """

    norm: int
    softmax: int
    loss_gradients: int
    adamw: int


PRECISIONS = {
    "cuda": Precision(norm=FULL, softmax=FULL + HALF, loss_gradients=4, adamw=FULL),
    "cpu": Precision(norm=HALF, softmax=HALF, loss_gradients=2, adamw=0),
}


@dataclass(frozen=True)
class Need:
    """Bytes for one case: ``kept`` until the backward pass, and ``temporary`` ones in addition during it."""

    kept: float
    temporary: float


def stage_need(config: FactorizerConfig, stage: int, size: Sequence[int], blocks: int, precision: Precision) -> Need:
    """The blocks of a stage of ``size`` voxels, and its output, which the next layers keep."""
    one = _block(config, stage, size, precision)
    output = math.prod(size) * config.features_per_stage[stage] * HALF
    if config.checkpointing:  # blocks keep only their input and are run again one by one
        again = one.kept - (output if config.depthwise == "entry" else 0)  # its first layer keeps that input, too
        return Need((blocks + 1) * output, again + one.temporary if blocks else 0)
    return Need(blocks * one.kept + output, one.temporary if blocks else 0)


def merge_need(config: FactorizerConfig, stage: int, size: Sequence[int]) -> Need:
    """Upsampling and adapter: their inputs are counted as outputs of stages; a concatenation is added."""
    features = math.prod(size) * config.features_per_stage[stage] * HALF
    return Need(2 * features if config.adapter == "conv" else 0, 2 * features)


def loss_need(num_classes: int, size: Sequence[int], precision: Precision) -> Need:
    """Logits of one resolution with nnU-Net's Dice and cross-entropy loss.

    They keep the logits, log-softmax, softmax and the one-hot reference.
    """
    voxels = math.prod(size)
    kept = num_classes * (HALF + FULL + precision.softmax + FULL) + LONG  # the label as an index
    return Need(voxels * kept, voxels * (num_classes * precision.loss_gradients * FULL + LONG))


def _block(config: FactorizerConfig, stage: int, size: Sequence[int], precision: Precision) -> Need:
    voxels = math.prod(size)
    width = config.features_per_stage[stage]
    features = voxels * width * HALF
    hidden = voxels * max(1, round(width * config.mlp_ratio)) * HALF
    # The norm keeps its input, and its output as input of the linear layer; GELU keeps its input and output.
    norm = voxels * width * precision.norm
    mlp = Need(norm + features + 2 * hidden, 2 * features + hidden)
    if config.depthwise == "mlp":
        mlp = Need(mlp.kept + config.num_convs(stage) * hidden, mlp.temporary)
    entry = config.num_convs(stage) * features if config.depthwise == "entry" else 0
    if not config.has_nmf(stage):
        return Need(entry + mlp.kept, mlp.temporary)
    mixer = _mixer(config, stage, size)
    gate = 2 * features if config.nmf_output == "gate" else 0  # the sigmoid, and the input that it scales
    kept = entry + norm + features + mixer.kept + gate + mlp.kept
    # During the backward pass of the mixer, the MLP's features are already free.
    return Need(kept, max(mlp.temporary, features + mixer.temporary - mlp.kept))


def _mixer(config: FactorizerConfig, stage: int, size: Sequence[int]) -> Need:
    """Nonnegative features, a copy in blocks for each family of shifts, and the input of the last projection."""
    width, head_dim = config.features_per_stage[stage], config.stage_head_dim(stage)
    features = math.prod(size) * width * HALF
    grid = window_grid(
        size, config.stage_window(stage), axis_shifts(config.shifts, config.ndim), config.border == "cyclic"
    )
    parts = families(grid, MIN_BLOCK_VOXELS)
    needs = [_family(part, width, head_dim, config.num_iters) for part in parts]
    moving = 2 * features if len(parts) > 1 or parts[0].moves else 0  # the sum over families is in float32
    return Need(2 * features + sum(need.kept for need in needs), moving + max(need.temporary for need in needs))


def _family(family: Family, width: int, head_dim: int, num_iters: int) -> Need:
    """A family of shifts that share blocks: features in blocks, a projection per block, the iterations per window."""
    axes = family.grid.axes
    features = math.prod(axis.num_blocks * axis.block for axis in axes) * width * HALF
    group = heads_per_group(width, head_dim) * head_dim
    blocks = math.prod(axis.num_blocks for axis in axes)
    projections = blocks * width * group * FULL
    windows = sum(
        math.prod(
            1 + math.ceil(axis.num_blocks / axis.blocks_per_window) - (start == 0)
            for axis, start in zip(axes, offset, strict=True)
        )
        for offset in family.grid.offsets
    )
    # The scaled Gram matrix, u uᵀ, and for every iteration u and its divisor.
    iteration = windows * width * (2 * head_dim + 2 * num_iters) * FULL
    return Need(features + projections + iteration, 2 * features * FULL / HALF + 2 * projections)
