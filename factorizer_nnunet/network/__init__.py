"""The Factorizer network: torch only, never nnU-Net.

The data's way through the modules: ``factorizer`` (the U-shaped network) calls ``blocks`` (one residual block),
which calls ``layers`` (norms, depthwise convolution) and ``gram`` (the NMF mixer) on windows laid out by
``windows``. ``config`` holds and checks every setting.
"""

from factorizer_nnunet.network.config import FactorizerConfig
from factorizer_nnunet.network.factorizer import Factorizer

__all__ = ["Factorizer", "FactorizerConfig"]
