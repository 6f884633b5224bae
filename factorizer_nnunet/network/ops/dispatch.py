"""The only place that chooses an implementation of an operation; all implementations give the same numbers.

The layers in plain PyTorch (``reference``, ``gram``) always work. On the CPU, large volumes take a residual branch in
parts, and training in full precision uses backward passes of our own (``cpu``). On CUDA, the kernels are used
(``triton``), for most operations under autocast only.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from factorizer_nnunet.network.ops import launch
from factorizer_nnunet.network.ops.depthwise import cpu as depthwise_cpu
from factorizer_nnunet.network.ops.depthwise import reference as depthwise_reference
from factorizer_nnunet.network.ops.mixer import cpu as mixer_cpu
from factorizer_nnunet.network.ops.mixer import gram
from factorizer_nnunet.network.ops.mixer import reference as mixer_reference
from factorizer_nnunet.network.ops.mixer.reference import MixerLayer
from factorizer_nnunet.network.ops.mlp import cpu as mlp_cpu
from factorizer_nnunet.network.ops.mlp import reference as mlp_reference
from factorizer_nnunet.network.ops.norm import cpu as norm_cpu
from factorizer_nnunet.network.ops.norm import reference as norm_reference
from factorizer_nnunet.network.ops.norm.linear_fusion import FusableNorm

# Triton is not available everywhere, so modules that need it are imported where they are used.

_KERNEL_MODULES = ("depthwise.triton", "mixer.triton", "mixer.triton_families", "mlp.triton", "norm.triton")
KERNELS_VARIABLE = "nnUNet_factorizer_kernels"  # set it to 0 to use plain PyTorch on CUDA, too
KERNELS_OFF = ("0", "false", "f")
MIN_HIDDEN_BYTES = 2**22  # of the MLP's hidden layer: a smaller one stays in the cache anyway, so slices do not pay
MIN_SLAB_VOLUME_BYTES = 2**24  # of the volume: smaller ones gain nothing from slabs
_MAX_CHANNELS_PER_VOXEL = 2  # of a block: with more, the matrices of the blocks are more than twice as large as x
_MIN_CAPABILITY = (8, 0)  # of a GPU with tensor cores for bfloat16
_MAX_CASE_NUMEL = 2**31  # the kernels count the elements of a case in 32 bits


def can_use_kernels(x: Tensor) -> bool:
    """Whether x is on a GPU that runs the kernels (NVIDIA, Ampere or newer), and they are not switched off.

    An exported network has only operators that other programs know.
    """
    return x.is_cuda and 0 < x.numel() < _MAX_CASE_NUMEL * x.shape[0] and _kernels_enabled()


def kernel_precision(x: Tensor) -> torch.dtype | None:
    """The half-precision type in which kernels multiply, as autocast requests; None if x is not for kernels."""
    if not (can_use_kernels(x) and torch.is_autocast_enabled("cuda")):
        return None
    dtype = torch.get_autocast_dtype("cuda")
    return dtype if dtype in (torch.float16, torch.bfloat16) else None


def inlined_kernels() -> AbstractContextManager[None]:
    """Let networks that are compiled within the block launch the kernels from the compiled code; see ``launch``."""
    for name in _KERNEL_MODULES:
        importlib.import_module(f"{__package__}.{name}")
    return launch.inlined_kernels()


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution, stride 1, same size out; see ``depthwise.reference``."""
    precision = kernel_precision(x)
    if precision is not None and max(weight.shape[2:]) <= 3:
        from factorizer_nnunet.network.ops.depthwise import triton as depthwise_triton

        return depthwise_triton.depthwise_conv(x.to(precision), weight, bias)
    if x.ndim == 5 and trains_on_cpu(x):
        return depthwise_cpu.depthwise_conv(x, weight, bias)
    return depthwise_reference.depthwise_conv(x, weight, bias)


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Instance norm on channels-last storage; see ``norm.reference``."""
    if trains_on_cpu(x):
        return norm_cpu.instance_norm(x, weight, bias, eps)
    if can_use_kernels(x) and x.dtype != torch.float64:
        from factorizer_nnunet.network.ops.norm import triton as norm_triton

        return norm_triton.instance_norm(x, weight, bias, eps)
    return norm_reference.instance_norm(x, weight, bias, eps)


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each case and channel; see ``norm.cpu``, which works on every device."""
    if can_use_kernels(x) and x.dtype != torch.float64:
        from factorizer_nnunet.network.ops.norm import triton as norm_triton

        return norm_triton.channel_moments(x)
    return norm_cpu.channel_moments(x)


def residual_mlp(x: Tensor, norm: nn.Module, expand: nn.Linear, contract: nn.Linear, overwrite: bool = False) -> Tensor:
    """x + contract(gelu(expand(norm(x)))); x: (B, *spatial, C), same shape out.

    ``overwrite`` allows x to be overwritten in inference.
    """
    if isinstance(norm, FusableNorm):
        hidden_bytes = x.numel() // x.shape[-1] * expand.out_features * x.element_size()
        if _is_eager_on_cpu(x) and hidden_bytes >= MIN_HIDDEN_BYTES:
            return mlp_cpu.residual_mlp(x, norm, expand, contract, overwrite and not torch.is_grad_enabled())
        precision = kernel_precision(x)
        if precision is not None:
            from factorizer_nnunet.network.ops.mlp import triton as mlp_triton

            if x.shape[-1] <= mlp_triton.MAX_CHANNELS:
                return mlp_triton.residual_mlp(x, norm, expand, contract, precision)
    return mlp_reference.residual_mlp(x, norm, expand, contract)


def normed_mixer(x: Tensor, norm: nn.Module, mixer: MixerLayer, *, residual: bool) -> Tensor:
    """mixer(norm(x)), or with ``residual`` x + mixer(norm(x)); x: (B, *spatial, C), same shape out."""
    if isinstance(norm, FusableNorm) and mixer.nmf.supports_block_gram:
        if _is_eager_on_cpu(x) and x.nbytes >= MIN_SLAB_VOLUME_BYTES and _blocks_are_large(x, mixer):
            return mixer_cpu.normed_mixer(x, norm, mixer, residual=residual)
        precision = kernel_precision(x)
        if precision is not None:
            from factorizer_nnunet.network.ops.mixer import triton as mixer_triton

            if x.shape[-1] <= mixer_triton.MAX_CHANNELS:
                return mixer_triton.normed_mixer(x, norm, mixer, precision, residual=residual)
    return mixer_reference.normed_mixer(x, norm, mixer, residual=residual)


def mix_windows(x: Tensor, mixer: MixerLayer) -> Tensor:
    """Replace every window of every head by its NMF, averaged over shifts; see ``mixer.reference``.

    Rank 1 from a constant start goes over blocks that all shifts of a family share; other power iterations go window by
    window, but still by Gram matrices.
    """
    if not mixer.nmf.supports_block_gram:
        by_gram = mixer.nmf.is_power_iteration
        return mixer_reference.mix_windows(x, mixer, gram.project_rank_one if by_gram else mixer_reference.iterate)
    families = mixer.families(x.shape[1:-1])
    if can_use_kernels(x) and x.dtype != torch.float64:
        from factorizer_nnunet.network.ops.mixer import triton_families

        return triton_families.mix_families(x, families, mixer.head_dim, mixer.nmf.num_iters)
    return gram.mix_families(x, families, mixer.head_dim, mixer.nmf.num_iters)


def trains_on_cpu(x: Tensor) -> bool:
    """Whether x is trained on a CPU in full precision, where our backward passes replace PyTorch's slow ones."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def _is_eager_on_cpu(x: Tensor) -> bool:
    """Whether branches may take x in parts: on the CPU, in full precision, not while compiling or exporting."""
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def _blocks_are_large(x: Tensor, mixer: MixerLayer) -> bool:
    """Whether the matrices of the blocks, C × C each, are not much larger than x."""
    block_voxels = (math.prod(a.block for a in family.grid.axes) for family in mixer.families(x.shape[1:-1]))
    return x.shape[-1] <= _MAX_CHANNELS_PER_VOXEL * min(block_voxels)


@torch.compiler.assume_constant_result
def _kernels_enabled() -> bool:
    # A function that torch.compile evaluates and does not trace: while tracing, torch 2.11 reports is_exporting as true
    # for compiled networks, too.
    if torch.compiler.is_exporting():
        return False
    return os.environ.get(KERNELS_VARIABLE, "1").strip().lower() not in KERNELS_OFF and _kernels_possible()


@functools.cache
def _kernels_possible() -> bool:
    """Whether Triton is installed and every GPU of this machine can run the kernels."""
    return (
        importlib.util.find_spec("triton") is not None
        and torch.version.cuda is not None
        and torch.cuda.is_available()
        and all(
            torch.cuda.get_device_capability(device) >= _MIN_CAPABILITY for device in range(torch.cuda.device_count())
        )
    )
