"""Check the types of values in a plans file, before nnU-Net fails on them without saying why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.path_names import path_component
from factorizer_nnunet.nnunet.plans import resolved_configuration

# key: type in JSON, and its name in messages
_OF_PLANS = {
    "plans_name": (str, "text"),
    "dataset_name": (str, "text"),
    "image_reader_writer": (str, "text"),
    "label_manager": (str, "text"),
    "transpose_forward": (list, "a list"),
    "transpose_backward": (list, "a list"),
}
_OF_CONFIGURATION = {
    "data_identifier": (str, "text"),
    "patch_size": (list, "a list"),
    "spacing": (list, "a list"),
    "batch_dice": (bool, "true or false"),
    "architecture": (dict, "an object"),
}
_OF_ARCHITECTURE = {
    "network_class_name": (str, "text"),
    "arch_kwargs": (dict, "an object"),
    "_kw_requires_import": (list, "a list"),
}
_OLDER_ARCHITECTURE = "UNet_class_name"  # plans of nnU-Net before 2.3, which it translates


def check_values(plans: Mapping[str, Any], configuration: str, name: str) -> None:
    """Check the types of values in one configuration, including those it inherits.

    Args:
        plans: content of the plans file, with its ``configurations``.
        configuration: one of them; one that does not exist is not reported here.
        name: of the plans file, for messages.

    Raises:
        UserError: a value has the wrong type; names file, configuration and key.
    """
    _check_kinds(plans, _OF_PLANS, name, "")
    for key in ("plans_name", "dataset_name"):
        if key in plans:
            path_component(plans[key], f"{key} in {name}")
    settings = resolved_configuration(plans, configuration, name)
    where = f"{name}, configuration {configuration}"
    _check_kinds(settings, _OF_CONFIGURATION, where, "")
    for key in ("data_identifier", "previous_stage"):
        if settings.get(key) is not None:
            path_component(settings[key], f"{key} in {where}")
    if "architecture" in settings:
        architecture = settings["architecture"]
        missing = [key for key in _OF_ARCHITECTURE if key not in architecture]
        if missing:
            raise UserError(f"{where} has no architecture.{missing[0]}; add it, or plan the data set again")
        _check_kinds(architecture, _OF_ARCHITECTURE, where, "architecture.")
    elif settings and _OLDER_ARCHITECTURE not in settings:
        raise UserError(f"{where} has no 'architecture'; add it, or plan the data set again")
    for mm in settings.get("spacing", ()):
        if isinstance(mm, bool) or not isinstance(mm, int | float) or not (math.isfinite(mm) and mm > 0):
            raise UserError(f"{where}: spacing {settings['spacing']} must be voxel sizes in mm above 0; correct it")


def _check_kinds(values: Mapping[str, Any], kinds: Mapping[str, tuple[type, str]], where: str, prefix: str) -> None:
    for key, (kind, words) in kinds.items():
        # Plans in memory have tuples and arrays where the file has lists.
        value = values.get(key)
        sequence = kind is list and hasattr(value, "__len__") and not isinstance(value, str | Mapping)
        if key in values and not isinstance(value, kind) and not sequence:
            raise UserError(f"{where}: {prefix}{key} {value!r} must be {words}; correct it or plan the data set again")
