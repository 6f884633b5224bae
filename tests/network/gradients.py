"""Gradients of two ways to one result."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def assert_same_gradients(ours: Tensor, theirs: Tensor, wanted: Sequence[Tensor], **tolerances: float) -> None:
    """Of a random combination of the result's entries, with respect to all that are wanted."""
    weight = torch.randn_like(theirs)
    of_ours, of_theirs = (torch.autograd.grad((result * weight).sum(), wanted) for result in (ours, theirs))
    for one, other in zip(of_ours, of_theirs, strict=True):
        torch.testing.assert_close(one, other, **tolerances)
