"""What the layers of Factorizer keep for the backward pass under autocast, and what they need meanwhile.

All figures are bytes for one case. Features are in half precision (2 bytes), the NMF's small matrices in float32.
What norms and losses keep depends on which of them autocast leaves in half precision, hence ``Kernels``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from factorizer_nnunet.network.config import FactorizerConfig
from factorizer_nnunet.network.mixer import MIN_BLOCK_VOXELS
from factorizer_nnunet.network.ops.mixer.gram import heads_per_group
from factorizer_nnunet.network.windows import Family, axis_shifts, families, window_grid

HALF, FULL, LONG = 2, 4, 8  # bytes of a number in half precision and in float32, of an index


@dataclass(frozen=True)
class Kernels:
    """What differs between devices.

    Attributes:
        norm: bytes a number of a norm. CUDA's autocast runs norms in float32, on a copy of the features that they keep.
        norm_copies: whether that copy is made.
        softmax: bytes a number of the probabilities in the Dice loss; on CUDA with one more copy of the logits.
        loss_gradients: copies of the logits in float32 while the losses go backward. On CUDA those of Dice, of both
            softmaxes and their sum; two were too few by a seventh for 100 classes on an H100.
        adamw: bytes a parameter that AdamW needs meanwhile; CUDA's updates all parameters at once.
    """

    norm: int
    norm_copies: bool
    softmax: int
    loss_gradients: int
    adamw: int


KERNELS = {
    "cuda": Kernels(norm=FULL, norm_copies=True, softmax=FULL + HALF, loss_gradients=4, adamw=FULL),
    "cpu": Kernels(norm=HALF, norm_copies=False, softmax=HALF, loss_gradients=2, adamw=0),
}


@dataclass(frozen=True)
class Need:
    """Bytes for one case: ``kept`` until the backward pass comes by, and beyond them ``meanwhile``, for a moment."""

    kept: float
    meanwhile: float


def stage_need(config: FactorizerConfig, stage: int, size: Sequence[int], blocks: int, kernels: Kernels) -> Need:
    """The blocks of one stage of ``size`` voxels, and its output, which the next layers keep."""
    one = _block(config, stage, size, kernels)
    output = math.prod(size) * config.features_per_stage[stage] * HALF
    if config.checkpointing:  # blocks keep their input alone and are run again one by one
        again = one.kept - (output if config.depthwise == "entry" else 0)  # whose first layer keeps that input, too
        return Need((blocks + 1) * output, again + one.meanwhile if blocks else 0)
    return Need(blocks * one.kept + output, one.meanwhile if blocks else 0)


def merge_need(config: FactorizerConfig, stage: int, size: Sequence[int]) -> Need:
    """Upsampling and adapter: both inputs are counted as outputs of their stages, a concatenation comes on top."""
    features = math.prod(size) * config.features_per_stage[stage] * HALF
    return Need(2 * features if config.adapter == "conv" else 0, 2 * features)


def loss_need(num_classes: int, size: Sequence[int], kernels: Kernels) -> Need:
    """Logits of one resolution with nnU-Net's Dice and cross-entropy loss.

    Kept are the logits, the logarithms and the probabilities of softmax, and the one-hot reference.
    """
    voxels = math.prod(size)
    kept = num_classes * (HALF + FULL + kernels.softmax + FULL) + LONG  # the label as an index
    return Need(voxels * kept, voxels * (num_classes * kernels.loss_gradients * FULL + LONG))


def _block(config: FactorizerConfig, stage: int, size: Sequence[int], kernels: Kernels) -> Need:
    voxels = math.prod(size)
    width = config.features_per_stage[stage]
    features = voxels * width * HALF
    hidden = voxels * max(1, round(width * config.mlp_ratio)) * HALF
    # The norm's input, and its output as the linear layer's input; GELU's input and output. A norm without a copy of
    # its own keeps the block's features themselves, which are counted once.
    norm = voxels * width * kernels.norm
    mlp = Need(norm + features + 2 * hidden, 2 * features + hidden)
    if config.depthwise == "mlp":
        mlp = Need(mlp.kept + hidden, mlp.meanwhile)
    entry = features if config.depthwise == "entry" else 0
    if not config.has_nmf(stage):
        return Need(entry + mlp.kept, mlp.meanwhile)
    mixer = _mixer(config, stage, size)
    kept = entry + norm + features + mixer.kept + mlp.kept
    # While the mixer goes backward, the MLP's features are free already.
    return Need(kept, max(mlp.meanwhile, features + mixer.meanwhile - mlp.kept))


def _mixer(config: FactorizerConfig, stage: int, size: Sequence[int]) -> Need:
    """The nonnegative features, a copy in blocks for each family of shifts, and the input of the last projection."""
    width, head_dim = config.features_per_stage[stage], config.stage_head_dim(stage)
    features = math.prod(size) * width * HALF
    grid = window_grid(
        size, config.stage_window(stage), axis_shifts(config.shifts, config.ndim), config.border == "cyclic"
    )
    parts = families(grid, MIN_BLOCK_VOXELS)
    needs = [_family(part, width, head_dim, config.num_iters) for part in parts]
    moving = 2 * features if len(parts) > 1 or parts[0].moves else 0  # the sum over families is in float32
    return Need(2 * features + sum(need.kept for need in needs), moving + max(need.meanwhile for need in needs))


def _family(family: Family, width: int, head_dim: int, num_iters: int) -> Need:
    """Shifts that share blocks: features in blocks, one projection a block, and the iteration of all windows."""
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
    # The scaled Gram matrix, u uᵀ, u of every iteration and what it is divided by.
    iteration = windows * width * (2 * head_dim + 2 * num_iters) * FULL
    return Need(features + projections + iteration, 2 * features * FULL / HALF + 2 * projections)
