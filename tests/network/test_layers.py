"""Channels-last layers equal torch's channels-first ones, backward too."""

from __future__ import annotations

import pytest
import torch
from gradients import assert_same_gradients
from torch.nn import functional as F

from factorizer_nnunet.network.layers import DepthwiseConv
from factorizer_nnunet.network.layout import channels_first, channels_last
from factorizer_nnunet.network.norms import InstanceNorm


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (5, 3, 1)])
@pytest.mark.parametrize("size", [(6, 7, 5), (2, 4, 3), (1, 3, 4)])
def test_depthwise_convolution_and_its_gradients(kernel: tuple, size: tuple) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv(4, kernel).double()
    x = torch.randn(2, *size, 4, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    padding = tuple(k // 2 for k in kernel)
    convolved = F.conv3d(channels_first(x), layer.weight, layer.bias, padding=padding, groups=4)
    expected = x + channels_last(convolved)
    torch.testing.assert_close(y, expected)
    assert_same_gradients(y, expected, (x, layer.weight, layer.bias))


@pytest.mark.parametrize("size", [(5, 4), (3, 4, 5)])
def test_instance_norm_and_its_gradients(size: tuple) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, *size, 6, dtype=torch.float64, requires_grad=True)
    norm = InstanceNorm(6).double()
    torch.nn.init.uniform_(norm.weight)
    torch.nn.init.uniform_(norm.bias)
    y = norm(x)
    expected = channels_last(F.instance_norm(channels_first(x), weight=norm.weight, bias=norm.bias, eps=1e-5))
    torch.testing.assert_close(y, expected)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), expected)
    assert_same_gradients(y, expected, (x, norm.weight, norm.bias))


def test_a_single_voxel_is_normalised_to_the_bias() -> None:
    norm = InstanceNorm(4)
    torch.testing.assert_close(norm(torch.randn(2, 1, 1, 1, 4)), torch.zeros(2, 1, 1, 1, 4), atol=1e-3, rtol=0)
