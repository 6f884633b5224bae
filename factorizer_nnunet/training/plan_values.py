"""Values of a plans file that are of another kind than nnU-Net reads, before nnU-Net fails on them without a reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from factorizer_nnunet.core.errors import UserError

# key: type in JSON, and how to call it
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
    """Check the kinds of values of one configuration, with what it inherits.

    Args:
        plans: content of the plans file, with its ``configurations``.
        configuration: one of them, or one that is not there, which is not told here.
        name: of the plans file.

    Raises:
        UserError: naming file, configuration and key.
    """
    if not isinstance(plans["configurations"], Mapping):
        raise UserError(f"{name}: configurations must be an object; correct it or plan the data set again")
    settings = _resolved(plans["configurations"], configuration, name)
    where = f"{name}, configuration {configuration}"
    _check_kinds(settings, _OF_CONFIGURATION, where, "")
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


def _resolved(configurations: Mapping[str, Any], configuration: str, name: str) -> dict[str, Any]:
    """A configuration with what it inherits; empty if there is none of this name."""
    settings: dict[str, Any] = {}
    followed: list[str] = []
    current: Any = configuration if configuration in configurations else None
    while current is not None:
        if current in followed or current not in configurations:
            raise UserError(
                f"{name}, configuration {followed[-1]}: inherits_from {current!r} is not another configuration; "
                f"choose from {', '.join(configurations)}"
            )
        entry = configurations[current]
        if not isinstance(entry, Mapping):
            raise UserError(f"{name}, configuration {current}: must be an object; correct it")
        settings = {**entry, **settings}
        followed.append(current)
        current = entry.get("inherits_from")
    return settings


def _check_kinds(values: Mapping[str, Any], kinds: Mapping[str, tuple[type, str]], where: str, prefix: str) -> None:
    for key, (kind, words) in kinds.items():
        # Plans in memory hold tuples and arrays where the file has lists.
        value = values.get(key)
        sequence = kind is list and hasattr(value, "__len__") and not isinstance(value, str | Mapping)
        if key in values and not isinstance(value, kind) and not sequence:
            raise UserError(f"{where}: {prefix}{key} {value!r} must be {words}; correct it or plan the data set again")
