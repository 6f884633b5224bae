"""nnU-Net's plans: what configurations inherit, and the order of axes. Imports neither torch nor nnU-Net."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.path_names import path_component

_NAMES = ("data_identifier", "previous_stage", "next_stage", "inherits_from")  # of a configuration

MEDIAN_SPACING, MEDIAN_SHAPE = "original_median_spacing_after_transp", "original_median_shape_after_transp"
_PER_AXIS = (MEDIAN_SPACING, MEDIAN_SHAPE, "spacing", "median_image_size_in_voxels")  # of plans or configurations


def check_names(plans: Mapping[str, Any], file: Path) -> None:
    """Check every name in plans that commands join to a folder, so that none leads elsewhere.

    Args:
        plans: their content.
        file: ``DATASET/NAME.json``, which they must agree with where they say so: nnU-Net writes to what they say.

    Raises:
        UserError: a name is not one plain component, or names other plans or another dataset.
    """
    for key, expected in (("plans_name", file.stem), ("dataset_name", file.parent.name)):
        if key in plans and path_component(plans[key], f"{key} in {file}") != expected:
            raise UserError(
                f"{key} in {file} is {plans[key]!r} instead of {expected!r}, so that nnU-Net would write elsewhere. "
                "Correct it, or plan again"
            )
    configurations = plans.get("configurations", {})
    for name, settings in configurations.items() if isinstance(configurations, Mapping) else ():
        path_component(name, f"a configuration in {file}")
        for key in _NAMES if isinstance(settings, Mapping) else ():
            values = settings.get(key) or []
            for value in values if isinstance(values, list) else [values]:
                path_component(value, f"{key} of {name} in {file}")


def resolved_configuration(plans: Mapping[str, Any], configuration: str, name: str) -> dict[str, Any]:
    """The settings of a configuration, including those that it inherits; empty if the plans do not have it.

    Args:
        plans: content of a plans file; an empty one has no configurations.
        configuration: such as ``3d_fullres``.
        name: of the plans file, for messages.

    Raises:
        UserError: a configuration is not an object, or inherits from one that does not exist or from itself.
    """
    configurations = plans.get("configurations", {})
    if not isinstance(configurations, Mapping):
        raise UserError(f"{name}: configurations must be an object; correct it or plan the data set again")
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


def reordered(plans: Mapping[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """Plans whose images have their axes in another order; networks and patches stay as they are.

    Args:
        plans: content of a plans file, of which nothing is inherited.
        order: the new ``transpose_forward``. The first axis stays for 2D configurations, which lack it.
    """
    old = list(plans["transpose_forward"])

    def moved(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {key: of_axes(value) if key in _PER_AXIS else value for key, value in settings.items()}

    def of_axes(values: Sequence[Any]) -> list[Any]:
        missing = len(old) - len(values)
        return [values[old.index(axis) - missing] for axis in order[missing:]]

    return {
        **moved(copy.deepcopy(dict(plans))),
        "transpose_forward": list(order),
        "transpose_backward": [list(order).index(axis) for axis in range(len(order))],
        "configurations": {name: moved(copy.deepcopy(settings)) for name, settings in plans["configurations"].items()},
    }
