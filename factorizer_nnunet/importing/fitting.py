"""Fit an authors' network to a data set: reorder input channels and outputs, add a background output.

This is exact: rows and columns of the first and last layer are permuted, nothing is learned or estimated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from factorizer_nnunet.importing.weights import STEM
from factorizer_nnunet.nnunet.heads import Heads


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
    config = dict(config)
    if config["in_channels"] != len(heads.channels):
        raise ValueError(
            f"the weights take {config['in_channels']} channels, dataset.json has {len(heads.channels)}: "
            f"{', '.join(heads.channels)}"
        )
    add_background = config["out_channels"] == 1 and len(heads.outputs) == 2 and not heads.regions
    config["out_channels"] += add_background
    if config["out_channels"] != len(heads.outputs):
        raise ValueError(
            f"the weights give {config['out_channels']} outputs, dataset.json requires {len(heads.outputs)}: "
            f"{', '.join(heads.outputs)}"
        )
    _check_order("input", input_order, heads.channels)
    _check_order("output", output_order, heads.outputs)
    fitted = {}
    for name, value in state.items():
        if name == STEM and input_order is not None:
            value = value[:, list(input_order)]
        if re.fullmatch(r"(head|heads\.\d+)\.(weight|bias)", name):  # deep supervision has several output layers
            if add_background:  # sigmoid(s) is the second entry of softmax(0, s), so its logit is 0 everywhere
                value = torch.cat((torch.zeros_like(value), value))
            if output_order is not None:
                value = value[list(output_order)]
        fitted[name] = value
    return config, fitted


def _check_order(what: str, order: Sequence[int] | None, names: Sequence[str]) -> None:
    if order is not None and sorted(order) != list(range(len(names))):
        raise ValueError(
            f"the {what} order {list(order)} must contain each number from 0 to {len(names) - 1} once: the "
            f"number in the weights for each of {', '.join(names)}"
        )
