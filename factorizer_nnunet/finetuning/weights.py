"""Weights of a trained network for other channels and outputs: only the first and the last layers change.

Which layers these are follows from building the network with one more channel or output, so that it is true for
every network: the weights whose shape changes belong to them.

Channels. A matched channel keeps its kernels, a new one gets the mean of those of all old channels. Then the kernels of
all channels are multiplied by one number, so that the response to independent channels of equal variance keeps its
size: √(Σ old² / Σ new²), over all kernels. A model that was trained to predict without some channels and loses some
gets what it was trained with: old / new number of channels.

Outputs. A matched class or region keeps its weights, a new one gets the mean of all old ones but the background. Where
a model of labels (softmax) becomes one of regions (sigmoid), the background's logit is subtracted, which gives the
probabilities of a class against the background; in the other direction the new background is 0, since sigmoid(s) is
the second entry of softmax(0, s).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.finetuning.matching import Matched, Matching
from factorizer_nnunet.nnunet.dataset_json import BACKGROUND
from factorizer_nnunet.prediction.model import without_memory

Build = Callable[[int, int], nn.Module]  # a network from the numbers of its channels and outputs


@dataclass(frozen=True)
class EdgeLayers:
    """Weights of the first and last layers by name, with the axis of channels or outputs."""

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


def edge_layers(build: Build, channels: int, outputs: int) -> EdgeLayers:
    """Find the weights that depend on the numbers of channels and outputs."""
    before = shapes(build, channels, outputs)
    return EdgeLayers(
        _changed(before, shapes(build, channels + 1, outputs)), _changed(before, shapes(build, channels, outputs + 1))
    )


def shapes(build: Build, channels: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's weights, by name."""
    network = without_memory(lambda: build(channels, outputs))
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _changed(before: Mapping[str, tuple[int, ...]], after: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    changed = {}
    for name, shape in before.items():
        axes = [axis for axis, (old, new) in enumerate(zip(shape, after[name], strict=True)) if old != new]
        if axes:
            changed[name] = axes[0]
    return changed


def adapted(
    weights: Mapping[str, Tensor],
    layers: EdgeLayers,
    matched: Matched,
    *,
    drops_channels: bool,
    old_regions: bool,
    new_regions: bool,
) -> dict[str, Tensor]:
    """The weights for the channels and outputs of a new data set, see the module.

    Args:
        weights: of the trained network.
        layers: its first and last layers.
        matched: where the new channels and outputs come from.
        drops_channels: whether the model was trained to predict without some channels.
        old_regions, new_regions: whether outputs are regions (sigmoid) in the model, and in the data set.
    """
    result = dict(weights)
    inputs = {name: _chosen(weights[name], axis, matched.channels) for name, axis in layers.inputs.items()}
    factor = _factor(weights, inputs, matched.channels, drops_channels)
    for name, value in inputs.items():
        result[name] = value * factor if value.ndim > 1 else value
    for name, axis in layers.outputs.items():
        rows = weights[name].movedim(axis, 0)
        result[name] = _outputs(rows, matched.outputs, old_regions, new_regions).movedim(0, axis).contiguous()
    return result


def check_shapes(weights: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], trainer: str) -> None:
    """Check that the network of a trainer takes these weights.

    Raises:
        UserError: it does not.
    """
    for name in sorted({*weights, *expected}):
        found = tuple(weights[name].shape) if name in weights else None
        if found != expected.get(name):
            raise UserError(
                f"{trainer} builds another network than the model has: {name} has shape {expected.get(name)}, in the "
                f"model {found}. Choose with -tr a trainer of the model's network"
            )


def _chosen(value: Tensor, axis: int, matching: Matching) -> Tensor:
    """The weights of each new channel along ``axis``."""
    mean = value.mean(axis)
    parts = [mean if source is None else value.select(axis, source) for source in matching.sources]
    return torch.stack(parts, axis)


def _factor(old: Mapping[str, Tensor], new: Mapping[str, Tensor], channels: Matching, drops_channels: bool) -> float:
    sources = channels.sources
    if sorted(map(str, sources)) == sorted(map(str, range(len(channels.old)))):
        return 1.0  # the same channels, perhaps in another order
    if drops_channels and None not in sources and len(set(sources)) == len(sources):
        return len(channels.old) / len(sources)
    kernels = [name for name, value in new.items() if value.ndim > 1]
    before, after = (sum(float(one[name].double().square().sum()) for name in kernels) for one in (old, new))
    return math.sqrt(before / after) if after else 1.0


def _outputs(rows: Tensor, matching: Matching, old_regions: bool, new_regions: bool) -> Tensor:
    """The weights of each new output along the first axis."""
    relative = rows
    if not old_regions:
        background = rows[matching.old.index(BACKGROUND)]
        relative = rows - background if new_regions else rows
    foreground = [number for number, name in enumerate(matching.old) if old_regions or name != BACKGROUND]
    mean = relative[foreground].mean(0) if foreground else torch.zeros_like(rows[0])
    parts = []
    for name, source in zip(matching.new, matching.sources, strict=True):
        if name == BACKGROUND and old_regions and not new_regions:
            parts.append(torch.zeros_like(rows[0]))
        else:
            parts.append(mean if source is None else relative[source])
    return torch.stack(parts)
