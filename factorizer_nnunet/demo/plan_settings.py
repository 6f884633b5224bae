"""The demo's own plan settings: a small network that a CPU trains in minutes, laid over what was planned.

A ready settings file in `factorizer_nnunet.plans` has the shape of a plans file and holds only what it replaces. Here
`demo.json` fixes patch size, batch size and the stages of the network, so that the demo costs the same whatever the
planner makes of the phantoms; spacing, normalisation and everything about the data stay as planned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from factorizer_nnunet.files import load_json_object, write_whole


def demo_settings() -> dict[str, Any]:
    """Return the content of `factorizer_nnunet.plans/demo.json`."""
    text = resources.files("factorizer_nnunet.plans").joinpath("demo.json").read_text(encoding="utf-8")
    return json.loads(text)


def merged(plans: Mapping[str, Any], settings: Mapping[str, Any], where: str = "plans") -> dict[str, Any]:
    """Return `plans` with the values of `settings`; objects are merged key by key, anything else is replaced.

    Raises:
        ValueError: `settings` has a key that `plans` has not; a misspelled setting must not pass unnoticed.
    """
    result = dict(plans)
    for key, value in settings.items():
        if key not in plans:
            raise ValueError(f"{where} has no {key!r} to replace; it has {sorted(plans)}")
        both_objects = isinstance(value, Mapping) and isinstance(plans[key], Mapping)
        result[key] = merged(plans[key], value, f"{where}.{key}") if both_objects else value
    return result


def apply_demo_settings(plans_file: Path) -> None:
    """Lay the demo's settings over a plans file; doing so twice changes nothing."""
    plans = load_json_object(plans_file, "Remove it and run the demo again")
    write_whole(plans_file, json.dumps(merged(plans, demo_settings()), indent=4) + "\n")
