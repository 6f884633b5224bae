"""Build the network of a plans configuration: ours as the plans say, a stock U-Net translated to a Factorizer.

The plans in the folder of a model have the translation, so that a later version, whose default form may be another one,
builds the network that was trained. Models of earlier versions have the U-Net there: they were all of the plain form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from factorizer_nnunet.network import PLANNED_FORMS, plain_form
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.nnunet.plans import resolved_configuration
from factorizer_nnunet.planning.architecture import factorizer_architecture

STOCK_PACKAGE = "dynamic_network_architectures."  # nnU-Net's own networks; the U-Nets among them are translated


def translated_unet(settings: ConfigurationManager) -> str | None:
    """The name of the stock U-Net that a configuration describes and our trainer translates; None if it has another."""
    package, _, name = settings.network_arch_class_name.rpartition(".")
    return name if f"{package}.".startswith(STOCK_PACKAGE) else None


def plans_with_translation(plans: Mapping[str, Any], configuration: str, model: ModelFolder) -> dict[str, Any]:
    """The plans of a model that is trained, with the Factorizer in place of a stock U-Net.

    Folds of one model have one network: a folder that exists decides which form it is.

    Args:
        plans: those of the data set, which stay as they are.
        configuration: what is trained; the others keep their network.
        model: its folder, which need not exist.

    Raises:
        UserError: the folder's plans cannot be read.
        ValueError: the entry of a stock U-Net lacks its widths or strides.
    """
    settings = PlansManager(dict(plans)).get_configuration(configuration)
    if translated_unet(settings) is None:
        return dict(plans)
    unet, spacing = settings.network_arch_init_kwargs, settings.spacing
    chosen = factorizer_architecture(unet, spacing)
    if model.plans_file.is_file():
        content = model.plans(f"Restore it, or move {model.path} away to train the model again")
        known = resolved_configuration(content, configuration, str(model.plans_file))
        own = resolved_configuration(plans, configuration, str(plans["plans_name"]))
        trained = known.get("architecture")
        if known and trained == own.get("architecture"):
            return dict(plans)  # a model of an earlier version
        translations = (factorizer_architecture(unet, spacing, form=form) for form in PLANNED_FORMS.values())
        chosen = next((one for one in translations if one == trained), chosen)
    entry = {**plans["configurations"][configuration], "architecture": chosen}
    return {**plans, "configurations": {**plans["configurations"], configuration: entry}}


def trained_architecture(settings: ConfigurationManager) -> dict[str, Any]:
    """The ``architecture`` entry of the network that our trainer builds for a configuration of a model's plans.

    Raises:
        ValueError: the entry of a stock U-Net lacks its widths or strides.
    """
    arch_kwargs = settings.network_arch_init_kwargs
    if translated_unet(settings):
        return factorizer_architecture(arch_kwargs, settings.spacing, form=plain_form)
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
