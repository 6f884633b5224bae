"""Networks of candidates that no setting of ``Factorizer`` describes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.blocks import FactorizerBlock, Stage
from factorizer_nnunet.network.layers import Conv
from factorizer_nnunet.network.norms import build_norm


class GatedBlock(nn.Module):
    """A block whose NMF scales its input, by 0 to 2, instead of being added to it."""

    def __init__(self, block: FactorizerBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """x: (B, *spatial, C); returns the same shape."""
        block = self.block
        if block.depthwise is not None:
            x = block.depthwise(x)
        x = x * (2 * block.mixer(block.norm1(x)).sigmoid())
        return x + block.mlp(block.norm2(x))


class GatedFactorizer(Factorizer):
    """With ``GatedBlock`` where the default has an NMF."""

    def __init__(self, input_channels: int, num_classes: int, **settings: Any) -> None:
        super().__init__(input_channels, num_classes, **settings)
        for stage in [module for module in self.modules() if isinstance(module, Stage)]:
            for index, block in enumerate(stage):
                if block.mixer is not None:
                    stage[index] = GatedBlock(block)


class ConvStemFactorizer(Factorizer):
    """With a second convolution in the stem, after an instance norm and a GELU."""

    def __init__(self, input_channels: int, num_classes: int, **settings: Any) -> None:
        super().__init__(input_channels, num_classes, **settings)
        width, kernel = self.config.features_per_stage[0], self.config.kernel_sizes[0]
        norm = build_norm(self.config.norm, width)
        self.encoder.stem = nn.Sequential(self.encoder.stem, norm, nn.GELU(), Conv(width, width, kernel))
