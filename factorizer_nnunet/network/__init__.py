"""The Factorizer network: torch only, never nnU-Net.

The data's way through the modules: ``factorizer`` (the U-shaped network) calls ``blocks`` (one residual block), which
calls ``layers`` (norms, depthwise convolution) and ``mixer`` (context by NMF). The mixer lays ``windows`` over a stage,
brings them into matrices (``layout``) and factorises them by Gram matrices (``gram``, rank 1) or by plain iteration
(``nmf``, ``solvers``). ``config`` holds and checks every setting, ``variants`` are its named forms, and
``upstream`` takes the authors' models over.
"""

from factorizer_nnunet.network.config import FactorizerConfig
from factorizer_nnunet.network.factorizer import Factorizer
from factorizer_nnunet.network.upstream import from_upstream
from factorizer_nnunet.network.variants import VARIANTS, build_variant, default_form, variant_arguments

# Names of earlier versions, kept for scripts that use them.
build_preset = build_variant
preset_arguments = variant_arguments

__all__ = [
    "VARIANTS",
    "Factorizer",
    "FactorizerConfig",
    "build_preset",
    "build_variant",
    "default_form",
    "from_upstream",
    "preset_arguments",
    "variant_arguments",
]
