"""The Factorizer network: torch only, never nnU-Net.

The data's way through the modules: ``factorizer`` (the U-shaped network) calls ``blocks`` (one residual block), which
calls ``layers`` (norms, depthwise convolution) and ``mixer`` (context by NMF). The mixer lays ``windows`` over a stage,
brings them into matrices (``layout``) and factorises them by Gram matrices (``gram``, rank 1) or by plain iteration
(``nmf``, ``solvers``). ``config`` holds and checks every setting, ``presets`` names forms of the network, and
``upstream`` takes the authors' models over.
"""

from factorizer_nnunet.network.config import FactorizerConfig
from factorizer_nnunet.network.factorizer import Factorizer
from factorizer_nnunet.network.presets import PRESETS, build_preset, default_form, preset_arguments
from factorizer_nnunet.network.upstream import from_upstream

__all__ = [
    "PRESETS",
    "Factorizer",
    "FactorizerConfig",
    "build_preset",
    "default_form",
    "from_upstream",
    "preset_arguments",
]
