"""The Factorizer network: torch only, never nnU-Net.

How data flows through the modules: ``factorizer`` (the U-shaped network) calls ``blocks`` (one residual block), which
call ``layers`` (norms, depthwise convolution) and ``mixer`` (context by NMF). The mixer divides a stage into windows,
lays them out as matrices (``layout``) and factorizes them (``nmf``, ``solvers``). ``ops`` has the implementations of
these operations, and ``ops.dispatch`` chooses one. ``config`` contains and checks every setting, ``variants`` are the
named forms of the network, and ``upstream`` converts the authors' models.
"""

from factorizer_nnunet.network.config import FactorizerConfig
from factorizer_nnunet.network.factorizer import Factorizer
from factorizer_nnunet.network.upstream import from_upstream
from factorizer_nnunet.network.variants import (
    PLANNED_FORMS,
    VARIANTS,
    build_variant,
    default_form,
    plain_form,
    variant_arguments,
)

# Names of earlier versions, kept for scripts that use them.
build_preset = build_variant
preset_arguments = variant_arguments

__all__ = [
    "PLANNED_FORMS",
    "VARIANTS",
    "Factorizer",
    "FactorizerConfig",
    "build_preset",
    "build_variant",
    "default_form",
    "from_upstream",
    "plain_form",
    "preset_arguments",
    "variant_arguments",
]
