"""What the launches of Triton kernels share: operators of ``torch.library``, and sizes of tiles and grids.

As operators, ``torch.compile`` takes the kernels as they are. They are defined in our own library and not by
``torch.library.custom_op``, which inspects every tensor at each call: in the deeper stages, that costs more than the
arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

_NAMESPACE = "factorizer_nnunet"
_LIBRARY = torch.library.Library(_NAMESPACE, "DEF")


def operator(name: str, fake: Callable[..., object]) -> Callable[[Callable[..., object]], OpOverload[..., Any]]:
    """Make an operator from a function that changes none of its arguments and returns new tensors.

    Args:
        name: of the operator.
        fake: returns empty tensors with the shapes and types of the results.
    """

    def register(function: Callable[..., object]) -> OpOverload[..., Any]:
        schema = torch.library.infer_schema(function, mutates_args=())
        _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{_NAMESPACE}::{name}", fake, lib=_LIBRARY)
        return getattr(getattr(torch.ops, _NAMESPACE), name).default

    return register


def like_first(x: Tensor, *_: object) -> Tensor:
    """For ``operator``: the result has shape and type of the first argument, and is contiguous."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def differentiable(
    operator: OpOverload[..., Any], backward: Callable[..., object], setup_context: Callable[..., object]
) -> None:
    """Give an operator its backward pass; ``setup_context(ctx, inputs, output)`` saves what the pass needs."""
    torch.library.register_autograd(operator, backward, setup_context=setup_context, lib=_LIBRARY)


def padded(count: int) -> int:
    """The smallest power of two for ``count`` channels; tensor cores need at least 16."""
    return max(16, 1 << (count - 1).bit_length())


def num_programs(tiles: int, max_programs: int) -> int:
    """How many programs share the tiles of a case when each accumulates its own sums."""
    return max(1, min(tiles, max_programs))
