"""From the U-Net that nnU-Net plans to a Factorizer of the same shape.

nnU-Net's planner chooses stages, strides, kernels and widths from spacing and patch size, and Factorizer uses them
unchanged; only NMF windows and depth are chosen here. Our planner and our trainer (for stock plans) both call
``factorizer_architecture``, so that equal plans give equal networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from factorizer_nnunet.network import default_form
from factorizer_nnunet.network.config import DEFAULT_WINDOW
from factorizer_nnunet.planning.sizes import SIZES, Size, per_stage

NETWORK_CLASS = "factorizer_nnunet.network.Factorizer"


def factorizer_architecture(
    arch_kwargs: Mapping[str, Any],
    spacing: Sequence[float],
    size: Size = SIZES["S"],
    form: Callable[[int], dict[str, Any]] = default_form,
) -> dict[str, Any]:
    """The ``architecture`` entry of a plans configuration that builds a Factorizer in place of a U-Net.

    Args:
        arch_kwargs: ``arch_kwargs`` of a stock U-Net (such as PlainConvUNet or ResidualEncoderUNet), of which
            ``features_per_stage``, ``strides`` and, if given, ``kernel_sizes`` are used.
        spacing: voxel size of the configuration in mm, in the order of the patch's axes.
        size: the size whose depth is used; widths are those of ``arch_kwargs``.
        form: one of ``network.PLANNED_FORMS``.

    Raises:
        ValueError: ``features_per_stage`` or ``strides`` is missing.
    """
    missing = [key for key in ("features_per_stage", "strides") if key not in arch_kwargs]
    if missing:
        raise ValueError(f"architecture.arch_kwargs has no {missing[0]!r}; it is not the plan of a U-Net")
    ndim = len(spacing)
    strides = [_per_axis(stride, ndim) for stride in arch_kwargs["strides"]]
    kernels = arch_kwargs.get("kernel_sizes", 3)
    kernel_sizes = (
        [_per_axis(kernels, ndim)] * len(strides)
        if isinstance(kernels, int)
        else [_per_axis(kernel, ndim) for kernel in kernels]
    )
    settings = form(len(strides))
    return architecture_entry(
        {
            "features_per_stage": [_multiple_of(settings["head_dim"], n) for n in arch_kwargs["features_per_stage"]],
            "strides": strides,
            "kernel_sizes": kernel_sizes,
            "window_sizes": isotropic_windows(spacing, strides),
            "n_blocks_per_stage": per_stage(size.encoder_blocks, len(strides)),
            "n_blocks_per_stage_decoder": per_stage(size.decoder_blocks, len(strides) - 1),
            **settings,
        }
    )


def architecture_entry(arch_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The ``architecture`` entry of a plans configuration for arguments of ``network.Factorizer``."""
    return {"network_class_name": NETWORK_CLASS, "arch_kwargs": dict(arch_kwargs), "_kw_requires_import": []}


def isotropic_windows(
    spacing: Sequence[float], strides: Sequence[Sequence[int]], window: int = DEFAULT_WINDOW
) -> list[list[int]]:
    """NMF windows per stage, in voxels, about equally long in mm along every axis: 8 voxels along the finest axis.

    Along coarser axes the window is the even number of voxels nearest to that length, since odd ones cannot be shifted
    by a half, or 1 if a single voxel is that long.
    """
    windows = []
    size_mm = [float(s) for s in spacing]
    for stride in strides:
        size_mm = [mm * s for mm, s in zip(size_mm, stride, strict=True)]
        length = window * min(size_mm)
        windows.append([max(1, 2 * round(length / mm / 2)) for mm in size_mm])
    return windows


def _per_axis(value: int | Sequence[int], ndim: int) -> list[int]:
    return [value] * ndim if isinstance(value, int) else [int(v) for v in value]


def _multiple_of(head_dim: int, width: int) -> int:
    """The multiple of ``head_dim`` nearest to ``width``."""
    return max(head_dim, head_dim * round(width / head_dim))
