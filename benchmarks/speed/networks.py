"""The networks that are compared, each as it would be planned for a patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from torch import nn

from benchmarks.speed.literal import LiteralFactorizer
from factorizer_nnunet.network import PLANNED_FORMS, Factorizer, build_variant, variant_arguments
from factorizer_nnunet.planning.architecture import factorizer_architecture

UNET, DEFAULT, PLAIN = "PlainConvUNet", "Factorizer default", "Factorizer plain"
PUBLISHED, LITERAL = "Factorizer swin", "literal swin"
_MIN_FEATURE_MAP = 4
_RESENC_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6)  # of nnU-Net's ResEnc planners
_FEATURES = {2: 512, 3: 320}  # nnU-Net's largest widths


class NotApplicableError(Exception):
    """A network cannot take this patch, or what it needs is not installed; the text says why."""


def topology(patch_size: Sequence[int]) -> tuple[list, list, list]:
    """Widths, strides and kernels that nnU-Net's planner chooses for an isotropic patch."""
    ndim = len(patch_size)
    _, strides, kernels, _, _ = get_pool_and_conv_props([1.0] * ndim, patch_size, _MIN_FEATURE_MAP, 999999)
    widths = [min(_FEATURES[ndim], 32 * 2**stage) for stage in range(len(strides))]
    return widths, [list(s) for s in strides], [list(k) for k in kernels]


def _unet(
    cls: type[nn.Module], channels: int, classes: int, patch_size: Sequence[int], blocks: list, up: list
) -> nn.Module:
    widths, strides, kernels = topology(patch_size)
    ndim = len(patch_size)
    return cls(
        channels,
        len(widths),
        widths,
        (nn.Conv2d, nn.Conv3d)[ndim - 2],
        kernels,
        strides,
        blocks[: len(widths)],
        classes,
        up[: len(widths) - 1],
        conv_bias=True,
        norm_op=(nn.InstanceNorm2d, nn.InstanceNorm3d)[ndim - 2],
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )


def _plain_unet(channels: int, classes: int, patch_size: Sequence[int]) -> nn.Module:
    return _unet(PlainConvUNet, channels, classes, patch_size, [2] * 9, [2] * 9)


def _resenc(channels: int, classes: int, patch_size: Sequence[int]) -> nn.Module:
    return _unet(ResidualEncoderUNet, channels, classes, patch_size, list(_RESENC_BLOCKS), [1] * 9)


def _planned(form: str) -> Callable[[int, int, Sequence[int]], nn.Module]:
    def build(channels: int, classes: int, patch_size: Sequence[int]) -> nn.Module:
        widths, strides, kernels = topology(patch_size)
        unet = {"features_per_stage": widths, "strides": strides, "kernel_sizes": kernels}
        plan = factorizer_architecture(unet, [1.0] * len(patch_size), form=PLANNED_FORMS[form])
        return Factorizer(channels, classes, **plan["arch_kwargs"])

    return build


def _published(channels: int, classes: int, patch_size: Sequence[int]) -> nn.Module:
    return build_variant("swin", channels, classes, patch_size)


def _four_shifts(channels: int, classes: int, patch_size: Sequence[int]) -> nn.Module:
    return build_variant("brats_published", channels, classes, patch_size)


def _changed(**changes: object) -> Callable[[int, int, Sequence[int]], nn.Module]:
    def build(channels: int, classes: int, patch_size: Sequence[int]) -> nn.Module:
        return Factorizer(channels, classes, **{**variant_arguments("swin", patch_size), **changes})

    return build


def _literally(variant: str) -> Callable[[int, int, Sequence[int]], nn.Module]:
    def build(channels: int, classes: int, patch_size: Sequence[int]) -> nn.Module:
        try:
            return LiteralFactorizer(build_variant(variant, channels, classes, patch_size), patch_size)
        except ValueError as error:
            raise NotApplicableError(str(error)) from error

    return build


def _swin_unetr(channels: int, classes: int, patch_size: Sequence[int]) -> nn.Module:
    try:
        from monai.networks.nets import SwinUNETR
    except ImportError as error:
        raise NotApplicableError("MONAI is not installed") from error
    if any(size % 32 for size in patch_size):
        raise NotApplicableError("its patch sizes are multiples of 32")
    return SwinUNETR(channels, classes, feature_size=48, spatial_dims=len(patch_size))


# name: function of input channels, classes and patch size in voxels
NETWORKS: dict[str, Callable[[int, int, Sequence[int]], nn.Module]] = {
    UNET: _plain_unet,
    "ResidualEncoderUNet M": _resenc,
    DEFAULT: _planned("default"),
    PLAIN: _planned("plain"),
    PUBLISHED: _published,
    "Factorizer swin, 1 iteration": _changed(num_iters=1),
    "Factorizer swin, 10 iterations": _changed(num_iters=10),
    "Factorizer swin, 4 shifts": _changed(shifts=[0.0, 0.25, 0.5, 0.75]),
    "Factorizer brats_published": _four_shifts,
    LITERAL: _literally("swin"),
    "literal brats_published": _literally("brats_published"),
    "SwinUNETR": _swin_unetr,
}
