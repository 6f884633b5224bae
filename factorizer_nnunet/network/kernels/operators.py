"""Operators of ``torch.library``, so that ``torch.compile`` takes the kernels as they are.

Defined in a library of our own and not by ``torch.library.custom_op``, which looks at every tensor at each call: of the
deeper stages the calls cost more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_NAMESPACE = "factorizer_nnunet"
_LIBRARY = torch.library.Library(_NAMESPACE, "DEF")


def operator(name: str, fake: Callable) -> Callable[[Callable], Callable]:
    """Make an operator of a function that changes none of its arguments and returns new tensors.

    Args:
        name: of the operator.
        fake: gives empty tensors of the shapes and types of the results.
    """

    def register(function: Callable) -> Callable:
        schema = torch.library.infer_schema(function, mutates_args=())
        _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{_NAMESPACE}::{name}", fake, lib=_LIBRARY)
        return getattr(getattr(torch.ops, _NAMESPACE), name).default

    return register


def differentiable(function: Callable, backward: Callable, keep: Callable) -> None:
    """Give an operator its backward pass; ``keep(ctx, inputs, output)`` saves what that needs."""
    torch.library.register_autograd(function, backward, setup_context=keep, lib=_LIBRARY)
