"""The configuration of a network of the authors, checked before anything is built from it.

It is what their network's constructor takes, as JSON; their classes may be named as in their MONAI bundles
(``$factorizer.SWMatricize``). An entry that asks for what we do not have is refused rather than ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from factorizer_nnunet.network.config_values import is_integer

# Parts of their network that can be exchanged there, and the one that we have.
_ONLY = {"norm": "LayerNorm", "act": "ReLU", "factorize": "NMF", "init": "uniform"}
_REQUIRED = ("in_channels", "out_channels", "spatial_size", "encoder_width", "reshape")
_ABOUT = ("_target_", "kind")  # say what is described, not how it is


def checked_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that ``from_upstream`` reads, with bare names of classes.

    Raises:
        ValueError: an entry is missing, unknown, of the wrong form, or has no counterpart here.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"the configuration is {type(config).__name__}; valid: a mapping of their network's arguments")
    config = {key: _as_json(value) for key, value in config.items()}
    missing = [key for key in _REQUIRED if key not in config]
    if missing:
        raise ValueError(f"configuration has no {missing[0]!r}; it is not that of a Factorizer network")
    for key, only in _ONLY.items():
        if key in config and _bare(config[key]) != only:
            raise ValueError(f"{key}={config[key]!r} has no counterpart; valid: {only!r}")
    checked = {key: value for key, value in config.items() if key not in (*_ONLY, *_ABOUT)}
    ndim = len(checked["spatial_size"]) if _are_counts(checked.get("spatial_size")) else 0
    _check_forms("", checked, _network_forms(ndim))
    name, options = checked["reshape"]
    _check_forms("reshape: ", options, _reshape_forms(ndim))
    checked["reshape"] = [_bare(name), options]
    return checked


def _as_json(value: object) -> object:
    """Tuples as lists, which is what a file would hold."""
    if isinstance(value, (list, tuple)):
        return [_as_json(v) for v in value]
    return {key: _as_json(v) for key, v in value.items()} if isinstance(value, Mapping) else value


# key: what is valid, in words and as a test
Forms = Mapping[str, tuple[str, Callable[[Any], bool]]]


def _check_forms(where: str, entries: Mapping[str, Any], forms: Forms) -> None:
    for key, value in entries.items():
        if key not in forms:
            raise ValueError(f"{where}{key!r} is unknown; known: {', '.join(forms)}")
        valid, fits = forms[key]
        if not fits(value):
            raise ValueError(f"{where}{key}={value!r} is impossible; valid: {valid}")


def _network_forms(ndim: int) -> Forms:
    """Entries of the constructor; which numbers fit together is left to the network."""
    count = ("an integer of at least 1", _is_count)
    number = ("a number", lambda v: isinstance(v, (int, float)) and not isinstance(v, bool))
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
            lambda v: isinstance(v, list) and all(_is_count(s) or (_are_counts(s) and len(s) == ndim) for s in v),
        ),
        "reshape": (
            'a name and its options, such as ["SWMatricize", {"head_dim": 8, "patch_size": 8}]',
            lambda v: isinstance(v, list) and len(v) == 2 and isinstance(v[0], str) and isinstance(v[1], dict),
        ),
        "num_deep_supr": ("a number of outputs or false", lambda v: isinstance(v, int)),
        "rank": count,
        "solver": ("a name", lambda v: isinstance(v, str)),
        "num_iters": count,
        "num_grad_steps": ("an integer of at least 1, or null", lambda v: v is None or _is_count(v)),
        "mlp_ratio": number,
        "dropout": number,
    }


def _reshape_forms(ndim: int) -> Forms:
    """Options of their matricisation; sizes and shifts are in voxels."""
    count = ("an integer of at least 1, or null", lambda v: v is None or _is_count(v))
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


def _is_count(value: object) -> bool:
    return is_integer(value) and value >= 1


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_count, value))
