"""Which implementation of a residual branch runs: all give the same numbers.

Layer by layer in plain PyTorch is always possible. Large volumes on the CPU go through a branch a part at a time
(``residual_mixer``, ``residual_mlp``), and on CUDA under autocast through kernels that do the same (``kernels``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from factorizer_nnunet.network.kernels.choice import kernel_precision
from factorizer_nnunet.network.layers import InstanceNorm
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.residual_mixer import can_be_mixed_in_slabs, residual_mixer
from factorizer_nnunet.network.residual_mlp import can_be_sliced, residual_mlp

# Triton is not everywhere, so the modules that need it are imported where they are used.


def fused_mixer(x: Tensor, norm: nn.Module, mixer: NMFMixer, overwrite: bool) -> Tensor | None:
    """x + mixer(norm(x)), same shape as x: (B, *spatial, C); None where only the layers themselves can do it.

    ``overwrite`` allows x to be overwritten in inference.
    """
    if can_be_mixed_in_slabs(x, norm, mixer):
        return residual_mixer(x, norm, mixer, overwrite and not torch.is_grad_enabled())
    precision = kernel_precision(x)
    if precision is None or not mixer.goes_by_blocks or not isinstance(norm, InstanceNorm | nn.LayerNorm):
        return None
    from factorizer_nnunet.network.kernels import mixer as kernels

    return kernels.residual_mixer(x, norm, mixer, precision) if x.shape[-1] <= kernels.MOST_CHANNELS else None


def fused_mlp(x: Tensor, norm: nn.Module, expand: nn.Linear, contract: nn.Linear, overwrite: bool) -> Tensor | None:
    """x + contract(gelu(expand(norm(x)))), likewise."""
    if can_be_sliced(x, norm, expand.out_features):
        return residual_mlp(x, norm, expand, contract, overwrite and not torch.is_grad_enabled())
    precision = kernel_precision(x)
    if precision is None or not isinstance(norm, InstanceNorm | nn.LayerNorm):
        return None
    from factorizer_nnunet.network.kernels import mlp as kernels

    return kernels.residual_mlp(x, norm, expand, contract, precision) if x.shape[-1] <= kernels.MOST_CHANNELS else None
