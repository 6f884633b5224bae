"""The configuration of an authors' network, checked before anything is built from it.

It contains the arguments of their network's constructor as JSON; classes may be named as in their MONAI bundles
(``$factorizer.SWMatricize``). Entries without a counterpart here are refused, not ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from factorizer_nnunet.network.config_values import is_count, is_integer, is_number

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
    _check_forms("", checked, _network_forms(ndim))
    name, options = checked["reshape"]
    _check_forms("reshape: ", options, _reshape_forms(ndim))
    checked["reshape"] = [_bare(name), options]
    return checked


def _as_json(value: object) -> object:
    """Tuples as lists, as in a JSON file."""
    if isinstance(value, (list, tuple)):
        return [_as_json(v) for v in value]
    return {key: _as_json(v) for key, v in value.items()} if isinstance(value, Mapping) else value


# key: what is expected, in words and as a test
Forms = Mapping[str, tuple[str, Callable[[Any], bool]]]


def _check_forms(where: str, entries: Mapping[str, Any], forms: Forms) -> None:
    for key, value in entries.items():
        if key not in forms:
            raise ValueError(f"{where}unknown {key!r}: expected one of {', '.join(forms)}")
        expected, is_valid = forms[key]
        if not is_valid(value):
            raise ValueError(f"{where}invalid {key}={value!r}: expected {expected}")


def _network_forms(ndim: int) -> Forms:
    """Arguments of the constructor; whether numbers fit together is checked by the network."""
    count = ("an integer of at least 1", is_count)
    number = ("a number", is_number)
    depths = (
        "a number of blocks per stage",
        lambda v: isinstance(v, list) and all(is_integer(depth) and depth >= 0 for depth in v),
    )
    return {
        "in_channels": count,
        "out_channels": count,
        "spatial_size": ("2 or 3 numbers of voxels", lambda v: _are_counts(v) and ndim in (2, 3)),
        "encoder_width": ("a width per stage", _are_counts),
        "encoder_depth": depths,
        "decoder_depth": depths,
        "strides": (
            f"a list of one stride per stage, each an integer or {ndim} of them",
            lambda v: isinstance(v, list) and all(is_count(s) or (_are_counts(s) and len(s) == ndim) for s in v),
        ),
        "reshape": (
            'a name and its options, such as ["SWMatricize", {"head_dim": 8, "patch_size": 8}]',
            lambda v: isinstance(v, list) and len(v) == 2 and isinstance(v[0], str) and isinstance(v[1], dict),
        ),
        "num_deep_supr": ("a number of outputs or false", lambda v: isinstance(v, int)),
        "rank": count,
        "solver": ("a name", lambda v: isinstance(v, str)),
        "num_iters": count,
        "num_grad_steps": ("an integer of at least 1, or null", lambda v: v is None or is_count(v)),
        "mlp_ratio": number,
        "dropout": number,
    }


def _reshape_forms(ndim: int) -> Forms:
    """Options of their matricisation; sizes and shifts in voxels."""
    count = ("an integer of at least 1, or null", lambda v: v is None or is_count(v))
    counts = (
        f"an integer of at least 1, a list of {ndim} of them, or null",
        lambda v: count[1](v) or (isinstance(v, list) and len(v) == ndim and all(map(count[1], v))),
    )

    def is_shift(value: object) -> bool:
        if isinstance(value, list):
            return len(value) == ndim and all(map(is_integer, value))
        return value is None or is_integer(value)

    shifts = (
        f"a list of shifts, each null, an integer or {ndim} of them",
        lambda v: v is None or (isinstance(v, list) and bool(v) and all(map(is_shift, v))),
    )
    return {"head_dim": count, "num_heads": count, "patch_size": counts, "grid_size": counts, "shifts": shifts}


def _bare(name: object) -> object:
    """``SWMatricize`` of ``$factorizer.SWMatricize``."""
    return name.lstrip("$").rpartition(".")[2] if isinstance(name, str) else name


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_count, value))
