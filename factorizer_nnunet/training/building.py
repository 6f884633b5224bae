"""Build the network of a plans configuration: ours as the plans say, a stock U-Net translated to a Factorizer."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from factorizer_nnunet.planning.architecture import factorizer_architecture

STOCK_PACKAGE = "dynamic_network_architectures."  # nnU-Net's own networks; the U-Nets among them are translated


def trained_architecture(settings: ConfigurationManager) -> dict[str, Any]:
    """The ``architecture`` entry of the network that our trainer builds for a configuration of the plans.

    Raises:
        ValueError: the entry of a stock U-Net lacks its widths or strides.
    """
    arch_kwargs = settings.network_arch_init_kwargs
    if settings.network_arch_class_name.startswith(STOCK_PACKAGE):
        return factorizer_architecture(arch_kwargs, settings.spacing)
    return {
        "network_class_name": settings.network_arch_class_name,
        "arch_kwargs": arch_kwargs,
        "_kw_requires_import": list(settings.network_arch_init_kwargs_req_import),
    }


def build_network(
    settings: ConfigurationManager, input_channels: int, num_classes: int, deep_supervision: bool
) -> nn.Module:
    """Build the network on torch's default device.

    Args:
        settings: one configuration of the plans.
        input_channels: those of the image and, in a cascade, of the previous stage's segmentation.
        num_classes: output channels.
        deep_supervision: whether the network starts with all outputs switched on.

    Raises:
        ValueError: a setting is wrong; the message names it.
        TypeError: the settings contain a name that the network does not know.
    """
    architecture = trained_architecture(settings)
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        input_channels,
        num_classes,
        deep_supervision=deep_supervision,
    )
