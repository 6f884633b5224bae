"""Fit an authors' network to a data set: reorder input channels and outputs, add a background output.

This is exact: rows and columns of the first and last layer are permuted, nothing is learned or estimated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from factorizer_nnunet.importing.dataset import Heads
from factorizer_nnunet.importing.weights import STEM


def fit_to_dataset(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    heads: Heads,
    input_order: Sequence[int] | None = None,
    output_order: Sequence[int] | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and parameters of a network that nnU-Net can use for a data set.

    Args:
        config: configuration of the authors' network.
        state: its parameters.
        heads: channels and outputs of the data set.
        input_order: for each channel of the data set, the number of the network's channel; None keeps the order.
        output_order: likewise for the outputs.

    Raises:
        ValueError: numbers of channels or outputs differ, or an order is not a permutation.
    """
    config, state = dict(config), dict(state)
    if config["in_channels"] != len(heads.channels):
        raise ValueError(
            f"the weights take {config['in_channels']} channels, dataset.json has {len(heads.channels)}: "
            f"{', '.join(heads.channels)}"
        )
    if config["out_channels"] == 1 and len(heads.outputs) == 2 and not heads.regions:
        state, config["out_channels"] = with_background(state), 2
    if config["out_channels"] != len(heads.outputs):
        raise ValueError(
            f"the weights give {config['out_channels']} outputs, dataset.json requires {len(heads.outputs)}: "
            f"{', '.join(heads.outputs)}"
        )
    _check_order("input", input_order, heads.channels)
    _check_order("output", output_order, heads.outputs)
    if input_order is not None:
        state = reorder_inputs(state, input_order)
    if output_order is not None:
        state = reorder_outputs(state, output_order)
    return config, state


def _check_order(what: str, order: Sequence[int] | None, names: Sequence[str]) -> None:
    if order is not None and sorted(order) != list(range(len(names))):
        raise ValueError(
            f"the {what} order {list(order)} must contain each number from 0 to {len(names) - 1} once: the "
            f"number in the weights for each of {', '.join(names)}"
        )


def reorder_inputs(state: Mapping[str, Tensor], order: Sequence[int]) -> dict[str, Tensor]:
    """The network whose channel ``i`` is channel ``order[i]`` of this one."""
    return {name: value[:, list(order)] if name == STEM else value for name, value in state.items()}


def reorder_outputs(state: Mapping[str, Tensor], order: Sequence[int]) -> dict[str, Tensor]:
    """The network whose output ``i`` is output ``order[i]`` of this one."""
    return {name: value[list(order)] if _is_head(name) else value for name, value in state.items()}


def with_background(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network with two outputs whose softmax equals the sigmoid of the only output of this one.

    Since sigmoid(s) is the second entry of softmax(0, s), the background logit is 0 everywhere.
    """
    return {
        name: torch.cat((torch.zeros_like(value), value)) if _is_head(name) else value for name, value in state.items()
    }


def _is_head(name: str) -> bool:
    """Whether a parameter belongs to an output layer, of which deep supervision has several."""
    return re.fullmatch(r"(head|heads\.\d+)\.(weight|bias)", name) is not None
