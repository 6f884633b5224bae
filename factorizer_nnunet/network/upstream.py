"""Models of the authors' implementation (github.com/pashtari/factorizer), rebuilt from their configuration and weights.

The configuration contains the arguments of their network (``encoder_width``, ``reshape`` …); weights have their
parameter names (``encoder.blocks.0.block.blocks.0.fact.in_proj.linear.weight`` …).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from factorizer_nnunet.network.factorizer import Factorizer
from factorizer_nnunet.network.upstream_config import checked_config

_MATRICIZE = {"Matricize": False, "SWMatricize": True}  # name: whether windows are shifted by default
_EPS = 1e-16  # in the authors' updates
_SOLVERS = {"hals": "hals", "mu": "mu", "cd": "hals"}

# Modules of a block: the authors' name and ours.
_BLOCK_NAMES = {
    "norm1.norm": "norm1",
    "norm2.norm": "norm2",
    "fact.in_proj.linear": "mixer.in_proj",
    "fact.out_proj.linear": "mixer.out_proj",
    "fact.factorize.init": "mixer.start",
    "mlp.block.0.linear": "mlp.expand",
    "mlp.block.3.linear": "mlp.contract",
}


def upstream_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``Factorizer`` for a configuration of the authors' network that ``checked_config`` returned.

    Raises:
        ValueError: entries contradict each other; the message names one.
    """
    spatial_size = list(config["spatial_size"])
    ndim, num_stages = len(spatial_size), len(config["encoder_width"])
    strides = config.get("strides", [1] + [2] * (num_stages - 1))
    strides = [[s] * ndim if isinstance(s, int) else list(s) for s in strides]
    solver = config.get("solver", "hals")
    if solver not in _SOLVERS:
        raise ValueError(f"unknown solver={solver!r}: expected one of {sorted(_SOLVERS)}")
    depth = list(config.get("encoder_depth", [1] * num_stages))
    return {
        "input_channels": config["in_channels"],
        "num_classes": config["out_channels"],
        "features_per_stage": list(config["encoder_width"]),
        "strides": strides,
        "n_blocks_per_stage": depth,
        # The authors list decoder stages from the lowest resolution up, we from the highest down.
        "n_blocks_per_stage_decoder": list(config.get("decoder_depth", depth[:-1]))[::-1],
        **_matrices(config["reshape"], spatial_size, strides),
        "border": "cyclic",
        "rank": config.get("rank", 1),
        "solver": _SOLVERS[solver],
        "start": "uniform",
        "num_iters": config.get("num_iters", 5),
        "num_grad_steps": config.get("num_grad_steps"),
        "eps": _EPS,
        "mlp_ratio": config.get("mlp_ratio", 2),
        "dropout": config.get("dropout", 0.0),
        "position": "learned",
        "patch_size": spatial_size,
        "norm": "layer",
        "depthwise": "none",
        "adapter": "pointwise",
        "deep_supervision": _num_outputs(config, num_stages) > 0,
    }


def from_upstream(config: Mapping[str, Any], state_dict: Mapping[str, Tensor] | None = None) -> Factorizer:
    """The Factorizer that reproduces a model of the authors' implementation.

    Args:
        config: arguments of their network.
        state_dict: their parameters; None leaves the initial weights.

    Raises:
        ValueError: the configuration has no counterpart, or a parameter is missing, unexpected, not a tensor or of
            another shape.
    """
    config = checked_config(config)
    network = Factorizer(**upstream_arguments(config))
    network.decoder.num_outputs = max(1, _num_outputs(config, network.config.num_stages))
    if state_dict is not None:
        network = network.to(_common_dtype(state_dict))
        load_upstream(network, state_dict)
    return network


def _num_outputs(config: Mapping[str, Any], num_stages: int) -> int:
    """Number of outputs of deep supervision, from the highest resolution; 0 without it."""
    requested, most = config.get("num_deep_supr", False), max(1, num_stages - 1)
    if isinstance(requested, bool) or requested is None:
        return most if requested else 0
    if not isinstance(requested, int) or not 0 <= requested <= most:
        raise ValueError(f"invalid num_deep_supr={requested!r}: expected false, true, or 1 to {most} outputs")
    return requested


def _common_dtype(state_dict: Mapping[str, Tensor]) -> torch.dtype:
    """The smallest dtype that represents all parameters; ValueError if one is not a tensor."""
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"parameter {name!r} is of type {type(value).__name__}: expected a tensor")
    dtypes = {value.dtype for value in state_dict.values()}
    return functools.reduce(torch.promote_types, dtypes, torch.float32)


def load_upstream(network: Factorizer, state_dict: Mapping[str, Tensor]) -> None:
    """Copy the authors' parameters into a network that ``from_upstream`` built.

    Raises:
        ValueError: a parameter is missing, unexpected or of another shape.
    """
    own = network.state_dict()
    num_stages = network.config.num_stages
    converted: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        ours = own_name(name, num_stages)
        if ours not in own:
            raise ValueError(f"parameter {name!r} has no counterpart in the network of this configuration")
        tensor = _own_layout(name, torch.as_tensor(value), own[ours])
        if tensor.shape != own[ours].shape:
            raise ValueError(f"{name!r} has shape {list(value.shape)}; the configuration gives {list(own[ours].shape)}")
        converted[ours] = tensor
    # The authors have output layers only for the outputs that they return; we always have all.
    decoder = network.decoder
    num_outputs = decoder.num_outputs if decoder.deep_supervision else 1
    only_ours = tuple(f"decoder.seg_layers.{index}." for index in range(num_outputs, len(decoder.seg_layers)))
    missing = [name for name in own if name not in converted and not name.startswith(only_ours)]
    if missing:
        raise ValueError(f"the weights contain nothing for {missing[0]!r}")
    network.load_state_dict({**own, **converted})


def _matrices(
    reshape: tuple[str, Mapping[str, Any]], spatial_size: Sequence[int], strides: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Heads, windows and shifts from the authors' ``reshape``: the name and the options of the matricisation."""
    kind, options = reshape
    if kind not in _MATRICIZE:
        raise ValueError(f"unknown reshape={kind!r}: expected one of {sorted(_MATRICIZE)}")
    ndim = len(spatial_size)
    patches, counts = (_per_axis(options.get(key), ndim) for key in ("patch_size", "grid_size"))
    size, windows = list(spatial_size), []
    for stage, stride in enumerate(strides):
        size = [s // t for s, t in zip(size, stride, strict=True)]
        window = [p if p is not None else s // (c or 1) for s, p, c in zip(size, patches, counts, strict=True)]
        if any(w < 1 or s % w for s, w in zip(size, window, strict=True)):
            raise ValueError(f"patch_size={window} does not divide the {size} voxels of stage {stage}")
        windows.append(window)
    return {
        "head_dim": options.get("head_dim"),
        "num_heads": options.get("num_heads"),
        "window_sizes": windows,
        "shifts": _shifts(kind, options.get("shifts"), windows),
    }


def _shifts(
    kind: str, shifts: Sequence[int | Sequence[int] | None] | None, windows: Sequence[Sequence[int]]
) -> list[float | list[float]]:
    """Fractions of a window from the authors' shifts in voxels (None: not shifted).

    They roll the volume forward, which moves the window borders back.
    """
    if shifts is None and not _MATRICIZE[kind]:
        return [0.0]
    rows: list[list[float | list[float]]] = []
    for window in windows:
        voxels = [None, [w // 2 for w in window]] if shifts is None else shifts
        steps = [[step or 0 for step in _per_axis(shift, len(window))] for shift in voxels]
        row = [[(-s % w) / w for s, w in zip(step, window, strict=True)] for step in steps]
        rows.append([fractions[0] if len(set(fractions)) == 1 else fractions for fractions in row])
    if any(row != rows[0] for row in rows):
        raise ValueError(
            f"shifts={shifts} are different fractions of the window in each stage: only possible with patch_size"
        )
    return rows[0]


def _per_axis(value: int | Sequence[int | None] | None, ndim: int) -> list[int | None]:
    return list(value) if isinstance(value, Sequence) else [value] * ndim


def own_name(name: str, num_stages: int) -> str:
    """Our name for the authors' parameter ``name`` in a network with ``num_stages`` resolutions."""
    name = re.sub(r"^stem\.", "encoder.stem.conv.", name)
    name = re.sub(
        r"^encoder\.blocks\.(\d+)\.downsample\.", lambda m: f"encoder.downsamples.{int(m[1]) - 1}.conv.", name
    )
    name = re.sub(r"^encoder\.blocks\.\d+\.block\.pos_embed\.pos$", "encoder.position.weight", name)
    name = re.sub(r"^encoder\.blocks\.(\d+)\.block\.blocks\.", r"encoder.stages.\1.", name)
    # Their decoder stages are counted from the lowest resolution.
    name = re.sub(r"^decoder\.blocks\.(\d+)\.", lambda m: f"decoder.{num_stages - 2 - int(m[1])}.", name)
    name = re.sub(r"^decoder\.(\d+)\.upsample\.", r"decoder.upsamples.\1.conv.", name)
    name = re.sub(r"^decoder\.(\d+)\.block\.adapter\.linear\.", r"decoder.adapters.\1.", name)
    name = re.sub(r"^decoder\.(\d+)\.block\.blocks\.", r"decoder.stages.\1.", name)
    name = re.sub(r"^heads\.(\d+)\.", r"decoder.seg_layers.\1.", name)
    name = re.sub(r"^head\.", "decoder.seg_layers.0.", name)
    for theirs, ours in _BLOCK_NAMES.items():
        name = name.replace(f".{theirs}.", f".{ours}.")
    return name


def _own_layout(name: str, value: Tensor, own: Tensor) -> Tensor:
    """Convert a parameter: pointwise convolutions become matrices, positions become channels-last."""
    if name.endswith("pos_embed.pos"):
        return value.movedim(1, -1)
    if own.ndim == 2 and value.ndim > 2:
        return value.flatten(1)
    return value
