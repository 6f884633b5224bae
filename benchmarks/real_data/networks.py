"""Networks of candidates that no setting of ``Factorizer`` describes, made from one that the plans describe."""

from __future__ import annotations

from torch import nn

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.blocks import FactorizerBlock
from factorizer_nnunet.network.layers import Conv, DepthwiseConv
from factorizer_nnunet.network.norms import build_norm


def with_two_depthwise(network: Factorizer) -> Factorizer:
    """The network with two depthwise convolutions in a row below the first stage, which see as far as one of 5."""
    first = network.config.features_per_stage[0]
    for block in [module for module in network.modules() if isinstance(module, FactorizerBlock)]:
        width, _, *kernel = block.depthwise.weight.shape
        if width != first:
            block.depthwise = nn.Sequential(block.depthwise, DepthwiseConv(width, kernel))
    return network


def with_conv_stem(network: Factorizer) -> Factorizer:
    """The network with an instance norm, a GELU and a second convolution in its stem."""
    width, kernel = network.config.features_per_stage[0], network.config.kernel_sizes[0]
    norm = build_norm(network.config.norm, width)
    network.encoder.stem = nn.Sequential(network.encoder.stem, norm, nn.GELU(), Conv(width, width, kernel))
    return network
