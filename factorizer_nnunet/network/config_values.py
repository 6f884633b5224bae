"""The values that each setting of ``FactorizerConfig`` can have by itself, without a look at other settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from factorizer_nnunet.network.norms import NORMS
from factorizer_nnunet.network.positions import POSITIONS

ADAPTERS = ("pointwise", "conv")
BORDERS = ("cut", "cyclic")
DEPTHWISE = ("entry", "mlp", "none")
DOWNSAMPLINGS = ("patch", "overlap")
NMF_OUTPUTS = ("add", "gate")

Test = Callable[[Any], bool]
Rules = Mapping[str, tuple[str, Test]]  # name: what is expected, in words and as a test


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a JSON value is written as an integer; True and 8.0 are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: object) -> TypeGuard[int]:
    """Whether a JSON value is an integer of at least 1."""
    return is_integer(value) and value >= 1


def is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # unlike math.isfinite, also of integers with hundreds of digits


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise a ValueError about a setting unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"invalid {name}={value!r}: expected {expected}")


def check_values(values: Mapping[str, object], rules: Rules) -> None:
    """Check each value by itself; those without a rule are accepted.

    Raises:
        ValueError: one is invalid; the message says what is expected.
    """
    for name, value in values.items():
        if name in rules:
            expected, is_valid = rules[name]
            require(is_valid(value), name, value, expected)


def optional(test: Test) -> Test:
    """Whether a value is null or passes the test."""
    return lambda value: value is None or test(value)


def list_of(test: Test) -> Test:
    """Whether a value is a list whose entries pass the test."""
    return lambda value: isinstance(value, list | tuple) and all(map(test, value))


def _one_of(names: tuple[str, ...]) -> tuple[str, Test]:
    return f"one of {list(names)}", lambda value: value in names


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


_COUNT_OR_NULL = ("an integer of at least 1, or null", optional(is_count))
_BLOCKS = ("an integer of at least 0 per stage", list_of(lambda value: is_integer(value) and value >= 0))
_PROBABILITY = ("a number in [0, 1)", lambda value: is_number(value) and 0 <= value < 1)

# The settings of the NMF that are missing here are checked by ``NMFSettings``.
RULES: Rules = {
    "strides": ("a list per stage of an integer of at least 1 per axis", list_of(list_of(is_count))),
    "features_per_stage": (
        "an integer of at least 1 per stage",
        lambda value: bool(value) and list_of(is_count)(value),
    ),
    "n_blocks_per_stage": _BLOCKS,
    "n_blocks_per_stage_decoder": _BLOCKS,
    "kernel_sizes": (
        "a list per stage of an odd integer per axis",
        list_of(list_of(lambda value: is_count(value) and value % 2 == 1)),
    ),
    "window_sizes": (
        "null, or a list per stage of an integer of at least 1 or null per axis",
        optional(list_of(list_of(optional(is_count)))),
    ),
    "window_counts": (
        "null, or a list per stage of an integer of at least 1 per axis",
        optional(list_of(list_of(is_count))),
    ),
    "head_dim": _COUNT_OR_NULL,
    "num_heads": _COUNT_OR_NULL,
    "num_shifts": _COUNT_OR_NULL,
    "border": _one_of(BORDERS),
    "rank": ("an integer of at least 1", is_count),
    "num_iters": ("an integer of at least 1", is_count),
    "num_grad_steps": _COUNT_OR_NULL,
    "eps": ("a number, or null", optional(is_number)),
    "mlp_ratio": ("a number above 0", lambda value: is_number(value) and value > 0),
    "dropout": _PROBABILITY,
    "drop_path": _PROBABILITY,
    "position": _one_of(POSITIONS),
    "patch_size": ("null, or an integer of at least 1 per axis", optional(list_of(is_count))),
    "checkpointing": ("true or false", _is_bool),
    "norm": _one_of(tuple(NORMS)),
    "depthwise": _one_of(DEPTHWISE),
    "n_conv_per_stage": ("an integer of at least 1 per stage, or null", optional(list_of(is_count))),
    "downsample": _one_of(DOWNSAMPLINGS),
    "nmf_stages": ("true or false per stage, or null", optional(list_of(_is_bool))),
    "nmf_output": _one_of(NMF_OUTPUTS),
    "adapter": _one_of(ADAPTERS),
}
