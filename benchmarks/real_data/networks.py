"""Networks of candidates that no setting of ``Factorizer`` describes, made from one that the plans describe."""

from __future__ import annotations

from torch import nn

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.layers import Conv
from factorizer_nnunet.network.norms import build_norm


def with_conv_stem(network: Factorizer) -> Factorizer:
    """The network with an instance norm, a GELU and a second convolution in its stem."""
    width, kernel = network.config.features_per_stage[0], network.config.kernel_sizes[0]
    norm = build_norm(network.config.norm, width)
    network.encoder.stem = nn.Sequential(network.encoder.stem, norm, nn.GELU(), Conv(width, width, kernel))
    return network
