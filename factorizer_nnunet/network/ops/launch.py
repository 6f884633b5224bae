"""What the launches of Triton kernels share: operators of ``torch.library``, and sizes of tiles and grids.

To ``torch.compile``, an operation is usually one opaque operator, whose kernels are launched from Python. Within
``inlined_kernels`` it is an operator that the compiler looks into, so that the compiled code launches the kernels
itself. The opaque operators are defined in our own library and not by ``torch.library.custom_op``, which inspects every
tensor at each call: in the deeper stages, that costs more than the arithmetic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

_NAMESPACE = "factorizer_nnunet"
_LIBRARY = torch.library.Library(_NAMESPACE, "DEF")
_INLINED = "_inlined"  # ends the name of an operator that the compiler looks into
_is_inlining = False  # read in compiled functions, which are compiled again for the other value


class Operator:
    """An operation by kernels, which changes none of its arguments and returns new tensors."""

    def __init__(self, name: str, function: Callable[..., Any], fake: Callable[..., object]) -> None:
        self._name, self._function, self._fake = name, function, fake
        self._schema = torch.library.infer_schema(function, mutates_args=())
        self._autograd: tuple[Callable[..., object], Callable[..., object]] | None = None
        _LIBRARY.define(name + self._schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{_NAMESPACE}::{name}", fake, lib=_LIBRARY)
        self._opaque: OpOverload[..., Any] = getattr(getattr(torch.ops, _NAMESPACE), name).default
        self._inlined: OpOverload[..., Any] = self._opaque
        _OPERATORS.append(self)

    def __call__(self, *arguments: Any) -> Any:
        return (self._inlined if _is_inlining else self._opaque)(*arguments)

    def differentiable(self, backward: Callable[..., object], setup_context: Callable[..., object]) -> None:
        """Set the backward pass; ``setup_context(ctx, inputs, output)`` saves what the pass needs."""
        self._autograd = backward, setup_context
        torch.library.register_autograd(self._opaque, backward, setup_context=setup_context, lib=_LIBRARY)

    def make_inlined(self) -> None:
        """Define the operator that the compiler looks into; only when it is needed, since torch imports much for it."""
        if self._inlined is not self._opaque:
            return
        name = f"{_NAMESPACE}::{self._name}{_INLINED}"
        torch.library.triton_op(name, self._function, mutates_args=(), schema=self._schema)
        torch.library.register_fake(name, self._fake)
        if self._autograd is not None:
            backward, setup_context = self._autograd
            torch.library.register_autograd(name, backward, setup_context=setup_context)
        self._inlined = getattr(getattr(torch.ops, _NAMESPACE), self._name + _INLINED).default


_OPERATORS: list[Operator] = []


def operator(name: str, fake: Callable[..., object]) -> Callable[[Callable[..., Any]], Operator]:
    """Make an operator from a function.

    Args:
        name: of the operator.
        fake: returns empty tensors with the shapes and types of the results.
    """
    return lambda function: Operator(name, function, fake)


@contextlib.contextmanager
def inlined_kernels() -> Iterator[None]:
    """Let networks that are compiled within the block launch the kernels from the compiled code.

    Their modules must have been imported.
    """
    global _is_inlining
    for one in _OPERATORS:
        one.make_inlined()
    before, _is_inlining = _is_inlining, True
    try:
        yield
    finally:
        _is_inlining = before


def is_inlining() -> bool:
    """Whether the kernels are being inlined."""
    return _is_inlining


def wrap_triton(kernel: Any) -> Any:
    """The kernel, in a form that the compiler records while kernels are inlined.

    It has the name of torch's function, by which torch finds the kernels of an operator, to compile again after a
    change of their code.
    """
    return torch.library.wrap_triton(kernel) if _is_inlining else kernel


def like_first(x: Tensor, *_: object) -> Tensor:
    """For ``operator``: the result has shape and type of the first argument, and is contiguous."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def padded(count: int) -> int:
    """The smallest power of two for ``count`` channels; tensor cores need at least 16."""
    return max(16, 1 << (count - 1).bit_length())


def num_programs(tiles: int, max_programs: int) -> int:
    """How many programs share the tiles of a case when each accumulates its own sums."""
    return max(1, min(tiles, max_programs))
