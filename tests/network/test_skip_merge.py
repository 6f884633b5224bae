"""Upsampling and the adapter as two sums equal the layers one after the other."""

from __future__ import annotations

import pytest
import torch
from gradients import assert_same_gradients
from torch import nn

from factorizer_nnunet.network.layers import Upsample
from factorizer_nnunet.network.skip_merge import upsample_and_adapt


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 3), (2, 2), (1, 2)])
def test_same_result_and_gradients_as_layer_by_layer(stride: tuple) -> None:
    torch.manual_seed(0)
    upsample, adapter = Upsample(6, 4, stride).double(), nn.Linear(7, 5, bias=False).double()
    size = (3, 2, 5)[: len(stride)]
    low = torch.randn(2, *size, 6, dtype=torch.float64, requires_grad=True)
    full = tuple(s * t for s, t in zip(size, stride, strict=True))
    skip = torch.randn(2, *full, 3, dtype=torch.float64, requires_grad=True)
    merged = upsample_and_adapt(skip, low, upsample, adapter)
    expected = adapter(torch.cat((skip, upsample(low)), -1))
    torch.testing.assert_close(merged, expected)
    assert_same_gradients(merged, expected, (skip, low, *upsample.parameters(), *adapter.parameters()))
