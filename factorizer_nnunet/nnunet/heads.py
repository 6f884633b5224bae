"""The channels and outputs of the networks that nnU-Net builds for a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.nnunet.dataset_json import IGNORE, DatasetJson


@dataclass(frozen=True)
class Heads:
    """Names of the inputs and outputs of a network, in nnU-Net's order.

    Attributes:
        regions: whether outputs are regions, which may overlap (sigmoid each), or labels (one softmax).
    """

    channels: tuple[str, ...]
    outputs: tuple[str, ...]
    regions: bool


def heads(plans: Mapping[str, Any], configuration: str, description: DatasetJson) -> Heads:
    """Channels and outputs of a network that nnU-Net builds for this configuration.

    Raises:
        ValueError: nnU-Net cannot read the description.
        UserError: the description is invalid.
    """
    manager = PlansManager(dict(plans))
    try:
        label_manager = manager.get_label_manager(description.content)
        num_channels = determine_num_input_channels(manager, configuration, description.content)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"nnU-Net cannot read its labels and channels: {error}") from error
    channels, labels = description.channel_names, description.labels
    if len(channels) != num_channels:
        raise ValueError(f"it names {len(channels)} channels, but nnU-Net gives the network {num_channels}")
    if label_manager.has_regions:
        outputs = list(description.regions)
    else:
        outputs = sorted((name for name in labels if name != IGNORE), key=lambda name: labels[name][0])
    num_outputs = label_manager.num_segmentation_heads
    if len(outputs) != num_outputs:
        raise ValueError(f"it names {len(outputs)} outputs, but nnU-Net gives the network {num_outputs}")
    return Heads(channels, tuple(outputs), label_manager.has_regions)
