"""The configuration of an authors' network, checked before anything is built from it.

It contains the arguments of their network's constructor as JSON; classes may be named as in their MONAI bundles
(``$factorizer.SWMatricize``). Entries without a counterpart here are refused, not ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from factorizer_nnunet.network.config_values import RULES, Rules, check_values, is_count, is_integer, list_of, optional

# Exchangeable parts of their network, and the only one that we have.
_ONLY = {"norm": "LayerNorm", "act": "ReLU", "factorize": "NMF", "init": "uniform"}
_REQUIRED = ("in_channels", "out_channels", "spatial_size", "encoder_width", "reshape")
_ABOUT = ("_target_", "kind")  # name the described object; not settings


def checked_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that ``from_upstream`` reads, with class names without module.

    Raises:
        ValueError: an entry is missing, unknown, invalid, or has no counterpart here.
    """
    if not isinstance(config, Mapping):
        raise ValueError(
            f"the configuration is of type {type(config).__name__}: expected a mapping of their network's arguments"
        )
    config = {key: _as_json(value) for key, value in config.items()}
    missing = [key for key in _REQUIRED if key not in config]
    if missing:
        raise ValueError(f"the configuration has no {missing[0]!r}: it is not that of a Factorizer network")
    for key, only in _ONLY.items():
        if key in config and _bare(config[key]) != only:
            raise ValueError(f"{key}={config[key]!r} has no counterpart: expected {only!r}")
    checked = {key: value for key, value in config.items() if key not in (*_ONLY, *_ABOUT)}
    ndim = len(checked["spatial_size"]) if _are_counts(checked.get("spatial_size")) else 0
    _check("", checked, _network_rules(ndim))
    name, options = checked["reshape"]
    _check("reshape: ", options, _reshape_rules(ndim))
    checked["reshape"] = [_bare(name), options]
    return checked


def _as_json(value: object) -> object:
    """Tuples as lists, as in a JSON file."""
    if isinstance(value, (list, tuple)):
        return [_as_json(v) for v in value]
    return {key: _as_json(v) for key, v in value.items()} if isinstance(value, Mapping) else value


def _check(where: str, entries: Mapping[str, Any], rules: Rules) -> None:
    if unknown := [key for key in entries if key not in rules]:
        raise ValueError(f"{where}unknown {unknown[0]!r}: expected one of {', '.join(rules)}")
    try:
        check_values(entries, rules)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None


def _network_rules(ndim: int) -> Rules:
    """Arguments of the constructor; whether numbers fit together is checked by the network."""
    count = ("an integer of at least 1", is_count)
    depths = ("a number of blocks per stage", list_of(lambda depth: is_integer(depth) and depth >= 0))
    return {
        "in_channels": count,
        "out_channels": count,
        "spatial_size": ("2 or 3 numbers of voxels", lambda v: _are_counts(v) and ndim in (2, 3)),
        "encoder_width": ("a width per stage", _are_counts),
        "encoder_depth": depths,
        "decoder_depth": depths,
        "strides": (
            f"a list of one stride per stage, each an integer or {ndim} of them",
            list_of(lambda stride: is_count(stride) or (_are_counts(stride) and len(stride) == ndim)),
        ),
        "reshape": (
            'a name and its options, such as ["SWMatricize", {"head_dim": 8, "patch_size": 8}]',
            lambda v: isinstance(v, list) and len(v) == 2 and isinstance(v[0], str) and isinstance(v[1], dict),
        ),
        "num_deep_supr": ("a number of outputs or false", lambda v: isinstance(v, int)),
        "solver": ("a name", lambda v: isinstance(v, str)),
        **{name: RULES[name] for name in ("rank", "num_iters", "num_grad_steps", "mlp_ratio", "dropout")},
    }


def _reshape_rules(ndim: int) -> Rules:
    """Options of their matricisation; sizes and shifts in voxels."""
    count = ("an integer of at least 1, or null", optional(is_count))
    counts = (
        f"an integer of at least 1, a list of {ndim} of them, or null",
        lambda v: count[1](v) or (list_of(count[1])(v) and len(v) == ndim),
    )
    shifts = (
        f"a list of shifts, each null, an integer or {ndim} of them",
        optional(lambda v: bool(v) and list_of(optional(is_shift))(v)),
    )

    def is_shift(value: Any) -> bool:
        return is_integer(value) or (list_of(is_integer)(value) and len(value) == ndim)

    return {"head_dim": count, "num_heads": count, "patch_size": counts, "grid_size": counts, "shifts": shifts}


def _bare(name: object) -> object:
    """``SWMatricize`` of ``$factorizer.SWMatricize``."""
    return name.lstrip("$").rpartition(".")[2] if isinstance(name, str) else name


def _are_counts(value: Any) -> bool:
    return bool(value) and list_of(is_count)(value)
