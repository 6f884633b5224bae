"""nnU-Net's plans: configurations with what they inherit from others. Imports neither torch nor nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from factorizer_nnunet.core.errors import UserError


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
