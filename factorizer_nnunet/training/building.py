"""Build the network of a plans configuration: ours as the plans say, a stock U-Net translated to a Factorizer.

The plans in the folder of a model have the translation, so that a later version, whose default form may be another one,
builds the network that was trained. Models of earlier versions have the U-Net there: they were all of the plain form.
Further folds keep the Factorizer in the folder if it was translated from the same U-Net, even if it was edited.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, TypeGuard

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network import plain_form
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.nnunet.plans import resolved_configuration
from factorizer_nnunet.planning.architecture import NETWORK_CLASS, factorizer_architecture

STOCK_PACKAGE = "dynamic_network_architectures."  # nnU-Net's own networks; the U-Nets among them are translated
_FROM_UNET = ("features_per_stage", "strides", "kernel_sizes")  # settings that a translation takes from the U-Net
_READS, _PAUSE = 20, 0.2  # tries, and seconds between them: another fold that starts now may be writing the plans


def translated_unet(settings: ConfigurationManager) -> str | None:
    """The name of the stock U-Net that a configuration describes and our trainer translates; None if it has another."""
    package, _, name = settings.network_arch_class_name.rpartition(".")
    return name if f"{package}.".startswith(STOCK_PACKAGE) else None


def plans_with_translation(plans: Mapping[str, Any], configuration: str, model: ModelFolder) -> dict[str, Any]:
    """The plans of a model that is trained, with the Factorizer in place of a stock U-Net.

    Folds of one model have one network: if the folder has a Factorizer for this U-Net, of whatever form, it stays. A
    network for another U-Net is ignored, as by nnU-Net, which replaces the folder's plans.

    Args:
        plans: those of the data set, which stay as they are.
        configuration: what is trained; the others keep their network.
        model: its folder, which need not exist.

    Raises:
        UserError: the folder's plans cannot be read, also after some seconds.
        ValueError: the entry of a stock U-Net lacks its widths or strides.
    """
    settings = PlansManager(dict(plans)).get_configuration(configuration)
    if translated_unet(settings) is None:
        return dict(plans)
    chosen = factorizer_architecture(settings.network_arch_init_kwargs, settings.spacing)
    if model.plans_file.is_file():
        known = resolved_configuration(_read_plans_with_retries(model), configuration, str(model.plans_file))
        own = resolved_configuration(plans, configuration, str(plans["plans_name"]))
        trained = known.get("architecture")
        if known and trained == own.get("architecture"):
            return dict(plans)  # a model of an earlier version
        if _is_translation_of_same_unet(trained, chosen):
            chosen = trained
    entry = {**plans["configurations"][configuration], "architecture": chosen}
    return {**plans, "configurations": {**plans["configurations"], configuration: entry}}


def _read_plans_with_retries(model: ModelFolder) -> dict[str, Any]:
    fix = f"Restore it, or move {model.path} away to train the model again"
    for _ in range(_READS - 1):
        with contextlib.suppress(UserError):
            return model.plans(fix)
        time.sleep(_PAUSE)
    return model.plans(fix)


def _is_translation_of_same_unet(trained: object, translation: Mapping[str, Any]) -> TypeGuard[dict[str, Any]]:
    """Whether an ``architecture`` entry is a Factorizer with the widths, strides and kernels of a translation."""
    if not isinstance(trained, dict) or trained.get("network_class_name") != NETWORK_CLASS:
        return False
    settings = trained.get("arch_kwargs")
    wanted = translation["arch_kwargs"]
    return isinstance(settings, dict) and all(settings.get(key) == wanted[key] for key in _FROM_UNET)


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
