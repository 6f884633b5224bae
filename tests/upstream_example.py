"""A small network of the authors' implementation: its configuration, and parameters by their names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

CONFIG = {
    "in_channels": 2,
    "out_channels": 3,
    "spatial_size": [16, 16, 8],
    "encoder_width": [8, 16],
    "encoder_depth": [1, 1],
    "decoder_depth": [1],
    "strides": [1, 2],
    "reshape": ["SWMatricize", {"head_dim": 8, "patch_size": 4}],
    "rank": 1,
    "num_iters": 5,
    "solver": "hals",
    "mlp_ratio": 2,
}


def upstream_state(config: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random parameters of a network with windows, one block per stage and one output layer."""
    size, width = config["spatial_size"], config["encoder_width"]
    ndim, last = len(size), len(width) - 1
    shapes = {"stem.weight": (width[0], config["in_channels"], *[3] * ndim)}
    for stage in range(last + 1):
        prefix = f"encoder.blocks.{stage}."
        if stage > 0:
            shapes[f"{prefix}downsample.weight"] = (width[stage], width[stage - 1], *[2] * ndim)
            shapes[f"{prefix}downsample.bias"] = (width[stage],)
        if stage == last:
            shapes[f"{prefix}block.pos_embed.pos"] = (1, width[stage], *(s // 2**stage for s in size))
        shapes |= _block(f"{prefix}block.blocks.0.", width[stage], config)
    for index, stage in enumerate(reversed(range(last))):
        prefix = f"decoder.blocks.{index}."
        shapes[f"{prefix}upsample.weight"] = (width[stage + 1], width[stage], *[2] * ndim)
        shapes[f"{prefix}upsample.bias"] = (width[stage],)
        shapes[f"{prefix}block.adapter.linear.weight"] = (width[stage], 2 * width[stage], 1)
        shapes |= _block(f"{prefix}block.blocks.0.", width[stage], config)
    shapes["head.weight"] = (config["out_channels"], width[0], *[1] * ndim)
    shapes["head.bias"] = (config["out_channels"],)
    generator = torch.Generator().manual_seed(seed)
    return {name: _values(name, shape, generator) for name, shape in shapes.items()}


def _block(prefix: str, width: int, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden = config["mlp_ratio"] * width
    matrices = config["reshape"][1]
    voxels = math.prod([matrices["patch_size"]] * len(config["spatial_size"]))
    shapes = {
        "norm1.norm.weight": (width,),
        "norm1.norm.bias": (width,),
        "fact.in_proj.linear.weight": (width, width, 1),
        "fact.factorize.init.u0": (matrices["head_dim"], config["rank"]),
        "fact.factorize.init.v0": (voxels, config["rank"]),
        "fact.out_proj.linear.weight": (width, width, 1),
        "fact.out_proj.linear.bias": (width,),
        "norm2.norm.weight": (width,),
        "norm2.norm.bias": (width,),
        "mlp.block.0.linear.weight": (hidden, width, 1),
        "mlp.block.0.linear.bias": (hidden,),
        "mlp.block.3.linear.weight": (width, hidden, 1),
        "mlp.block.3.linear.bias": (width,),
    }
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def _values(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if ".init." in name:
        return torch.rand(shape, generator=generator)
    values = torch.randn(shape, generator=generator) / math.sqrt(max(1, math.prod(shape[1:])))
    return 1 + values if ".norm.weight" in name else values
