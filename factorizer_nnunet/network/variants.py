"""The variants: named forms of the network, each given as plain arguments of ``Factorizer``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from factorizer_nnunet.network.config_values import is_count, require
from factorizer_nnunet.network.factorizer import Factorizer

WIDTHS = (32, 64, 128, 256, 512)
SMALLEST_STAGE = 4  # voxels per axis; a patch is halved until its axes reach this size
FIRST_NMF_STAGE = 2  # at higher resolutions the NMF is not worth its cost (docs/default_form.md)


def plain_form(num_stages: int) -> dict[str, Any]:
    """One depthwise convolution and an added NMF: the default of earlier versions."""
    first = min(FIRST_NMF_STAGE, num_stages - 1)  # the lowest resolution always has the NMF
    return {
        "head_dim": 8,
        "shifts": [0.0, 0.5],
        "num_iters": 5,
        "mlp_ratio": 2.0,
        "norm": "instance",
        "depthwise": "entry",
        "adapter": "pointwise",
        "nmf_stages": [stage >= first for stage in range(num_stages)],
    }


def default_form(num_stages: int) -> dict[str, Any]:
    """Our default: two depthwise convolutions in a row below the first stage, and a gating NMF.

    It is for any widths, strides and windows; docs/default_form.md compares it with other forms.
    """
    return {**plain_form(num_stages), "nmf_output": "gate", "n_conv_per_stage": [1, *[2] * (num_stages - 1)]}


def everywhere_form(num_stages: int) -> dict[str, Any]:
    """The default form with the NMF at every resolution."""
    return {**default_form(num_stages), "nmf_stages": [True] * num_stages}


# Forms whose widths, strides and windows nnU-Net's planner decides, or the patch size alone.
PLANNED_FORMS: dict[str, Callable[[int], dict[str, Any]]] = {
    "default": default_form,
    "plain": plain_form,
    "everywhere": everywhere_form,
}


def _planned(patch_size: Sequence[int], form: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    shape = _widths_and_strides(patch_size)
    return {**shape, **form(len(shape["strides"]))}


def _widths_and_strides(patch_size: Sequence[int]) -> dict[str, Any]:
    """As many WIDTHS as the patch can be halved; short or odd axes are halved fewer times."""
    ndim = len(patch_size)
    size, strides = list(patch_size), [[1] * ndim]
    while len(strides) < len(WIDTHS):
        stride = [2 if s % 2 == 0 and s // 2 >= SMALLEST_STAGE else 1 for s in size]
        if max(stride) == 1:
            break
        size = [s // t for s, t in zip(size, stride, strict=True)]
        strides.append(stride)
    return {"features_per_stage": list(WIDTHS[: len(strides)]), "strides": strides}


def _published(
    patch_size: Sequence[int], window: int | None, shifts: Sequence[float], mlp_ratio: float
) -> dict[str, Any]:
    """The form of Ashtari et al. 2023: LayerNorm, pointwise adapters, cyclic windows, no depthwise convolution."""
    shape = _widths_and_strides(patch_size)
    size, windows = patch_size, []
    for stride in shape["strides"]:
        size = [s // t for s, t in zip(size, stride, strict=True)]
        windows.append([None if window is None or window >= s else window for s in size])
    return {
        **shape,
        "window_sizes": windows,
        "shifts": list(shifts),
        "border": "cyclic",
        "mlp_ratio": mlp_ratio,
        "norm": "layer",
        "depthwise": "none",
        "position": "learned",
        "patch_size": list(patch_size),
    }


# name: arguments for a patch size in voxels
VARIANTS: dict[str, Callable[[Sequence[int]], dict[str, Any]]] = {
    **{name: functools.partial(_planned, form=form) for name, form in PLANNED_FORMS.items()},
    "swin": lambda patch: _published(patch, 8, (0.0, 0.5), 2),
    "brats_published": lambda patch: _published(patch, 8, (0.0, 0.25, 0.5, 0.75), 4),
    "isles22_published": lambda patch: _published(patch, 4, (0.0, 0.25, 0.5, 0.75), 2),
    "local": lambda patch: _published(patch, 8, (0.0,), 2),
    "global": lambda patch: {**_published(patch, None, (0.0,), 2), "head_dim": None, "num_heads": 1},
}


def variant_arguments(name: str, patch_size: Sequence[int]) -> dict[str, Any]:
    """Arguments of ``Factorizer`` for a variant, as plain JSON values.

    Raises:
        ValueError: the name is unknown, or the patch size is not 2 or 3 numbers of voxels.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}: expected one of {sorted(VARIANTS)}")
    counts = isinstance(patch_size, Sequence) and all(map(is_count, patch_size))
    require(counts and len(patch_size) in (2, 3), "patch_size", patch_size, "2 or 3 integers of at least 1, in voxels")
    return VARIANTS[name](patch_size)


def build_variant(
    name: str, input_channels: int, num_classes: int, patch_size: Sequence[int], deep_supervision: bool = False
) -> Factorizer:
    """Build the variant ``name`` for patches of ``patch_size`` voxels.

    Raises:
        ValueError: the name is unknown, or the variant does not support the patch size.
    """
    return Factorizer(
        input_channels, num_classes, **variant_arguments(name, patch_size), deep_supervision=deep_supervision
    )


def build_network(
    input_channels: int,
    num_classes: int,
    patch_size: Sequence[int] = (128, 128, 128),
    variant: str = "default",
    *,
    deep_supervision: bool = False,
) -> Factorizer:
    """Build a network with sensible defaults.

    Args:
        input_channels, num_classes: of images and logits.
        patch_size: voxels of a patch, (z, y, x) or (y, x).
        variant: a key of ``VARIANTS``.
        deep_supervision: return logits of each resolution instead of the highest one's.

    Raises:
        ValueError: the variant is unknown, or does not support the patch size.

    Examples:
        >>> import torch
        >>> network = build_network(input_channels=4, num_classes=3, patch_size=(16, 32, 32)).eval()
        >>> with torch.inference_mode():
        ...     network(torch.rand(1, 4, 16, 32, 32)).shape
        torch.Size([1, 3, 16, 32, 32])
    """
    return build_variant(variant, input_channels, num_classes, patch_size, deep_supervision)
