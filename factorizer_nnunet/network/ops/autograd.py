"""What ``torch.autograd`` passes to forward and backward functions."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Context(Protocol):
    """The context of ``torch.autograd.Function``; torch's own annotations omit the attributes."""

    saved_tensors: tuple[Tensor, ...]  # None where None was saved
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...

    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...
