"""batchgeneratorsv2's transforms after the spatial one, applied to a sample on any device.

Parameters are drawn by each transform's own ``get_parameters``, on the host and from the host's generators, so that
their distribution is batchgeneratorsv2's and no draw waits for the device. Many transforms are then applied as they
are. Those in :data:`_OWN` use NumPy, create tensors on the CPU or index by a mask; they have a version here that gives
the same values for the same parameters. Their docstrings say what batchgeneratorsv2's version does.
Only random noise depends on the device's generator, and only the removal of a component waits for the device: to find
components there would take as many passes over the volume as the longest of them has voxels from end to end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.nnunet import random_binary_operator
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import ApplyRandomBinaryOperatorTransform
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.nnunet.seg_to_onehot import MoveSegAsOneHotToDataTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from skimage.morphology import ball, disk
from torch import Tensor

from factorizer_nnunet.training.augmentation.unsupported import UnsupportedError

# "image" (C, *spatial) and "segmentation" (C, *spatial), or a list of the latter after downsampling.
Sample = dict[str, Any]
Parameters = dict[str, Any]

# Applied as they are, once their parameters are drawn on the host.
_AS_THEY_ARE: frozenset[type[BasicTransform]] = frozenset(
    {
        MultiplicativeBrightnessTransform,
        ContrastTransform,
        SimulateLowResolutionTransform,
        GammaTransform,
        MirrorTransform,
        DownsampleSegForDSTransform,
    }
)
# Tensors of one number for each channel, which those transforms accept as lists of numbers, too.
_HOST_NUMBERS = ("multipliers", "gamma")
_OPERATORS = (
    random_binary_operator.binary_dilation_torch,
    random_binary_operator.binary_erosion_torch,
    random_binary_operator.binary_closing_torch,
    random_binary_operator.binary_opening_torch,
)
_BLUR_TRUNCATE = 6  # of batchgeneratorsv2's blur: the kernel has about so many standard deviations


def check_transform(transform: BasicTransform) -> None:
    """Check that :func:`apply` knows a transform.

    Raises:
        UnsupportedError: it is of another class, such as a subclass, or draws from a function that may need the image.
    """
    if type(transform) is RandomTransform:
        check_transform(transform.transform)
        return
    name = type(transform).__name__
    if type(transform) not in _AS_THEY_ARE and type(transform) not in _OWN:
        raise UnsupportedError(f"the transform {name}")
    for setting, value in vars(transform).items():
        for part in value if isinstance(value, tuple | list) else (value,):
            if callable(part) and type(part) is not BGContrast and part not in _OPERATORS:
                raise UnsupportedError(f"{name} with the function {setting}")


def apply(transform: BasicTransform, sample: Sample) -> Sample:
    """Draw the parameters of a transform that :func:`check_transform` accepts, and transform the sample with them."""
    # get_parameters looks at the image's shape and type alone, and draws on the image's device.
    shape_alone = torch.empty(1).expand(sample["image"].shape)
    parameters = transform.get_parameters(image=shape_alone)
    if type(transform) is RandomTransform:
        return apply(transform.transform, sample) if parameters["apply_transform"] else sample
    return apply_with(transform, sample, parameters)


def apply_with(transform: BasicTransform, sample: Sample, parameters: Parameters) -> Sample:
    """Transform the sample with the parameters that the transform has drawn on the host; changes it in place."""
    own = _OWN.get(type(transform))
    if own is not None:
        own(transform, sample, parameters)
        return sample
    numbers = {name: parameters[name].tolist() for name in _HOST_NUMBERS if parameters.get(name) is not None}
    return transform.apply(sample, **{**parameters, **numbers})


def _add_noise(transform: GaussianNoiseTransform, sample: Sample, parameters: Parameters) -> None:
    """Indexes the image by channels that lie on the host."""
    channels = parameters["apply_idx"].tolist()
    if not channels:
        return
    image, sigmas = sample["image"], parameters["sigmas"]
    noise = torch.empty((len(channels), *image.shape[1:]), dtype=image.dtype, device=image.device).normal_()
    for number, channel in enumerate(channels):
        image[channel].add_(noise[number], alpha=float(sigmas if transform.synchronize_channels else sigmas[number]))


def _blur(transform: GaussianBlurTransform, sample: Sample, parameters: Parameters) -> None:
    """Makes its kernel on the CPU, and times FFTs against convolutions with the host's clock."""
    for number, channel in enumerate(parameters["apply_to_channel"].nonzero().flatten().tolist()):
        sigmas = parameters["sigmas"] if transform.synchronize_channels else parameters["sigmas"][number]
        blurred = sample["image"][channel]
        for axis, sigma in enumerate(sigmas):
            blurred = _blur_axis(blurred, float(sigma), axis)
        sample["image"][channel] = blurred


def _blur_axis(values: Tensor, sigma: float, axis: int) -> Tensor:
    """Convolve one axis with a Gaussian, reflecting at the edges.

    As a sum of shifted images: kernels are short, and cuDNN's 3D depthwise convolutions are slow.
    """
    wanted = _BLUR_TRUNCATE * sigma + 0.5
    taps = round(wanted)
    if taps % 2 == 0:
        taps += 1 if wanted >= taps else -1
    half, size = taps // 2, values.shape[axis]
    weights = [math.exp(-0.5 * (shift / sigma) ** 2) for shift in range(half + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    before = values.narrow(axis, 1, half).flip(axis)
    after = values.narrow(axis, size - 1 - half, half).flip(axis)
    padded = torch.cat([before, values, after], axis)
    result = values * (weights[0] / total)
    for shift in range(1, half + 1):
        both = padded.narrow(axis, half - shift, size) + padded.narrow(axis, half + shift, size)
        result.add_(both, alpha=weights[shift] / total)
    return result


def _mask(transform: MaskImageTransform, sample: Sample, _: Parameters) -> None:
    """Indexes the image by a mask."""
    outside = sample["segmentation"][transform.channel_idx_in_seg] < 0
    for channel in transform.apply_to_channels:
        sample["image"][channel].masked_fill_(outside, transform.set_outside_to)


def _remove_label(transform: RemoveLabelTransform, sample: Sample, _: Parameters) -> None:
    """Indexes the segmentation by a mask."""
    labels, channels = sample["segmentation"], transform.segmentation_channels
    for channel in range(len(labels)) if channels is None else channels:
        labels[channel].masked_fill_(labels[channel] == transform.label_value, transform.set_to)


def _add_one_hot(transform: MoveSegAsOneHotToDataTransform, sample: Sample, _: Parameters) -> None:
    """Makes its result on the CPU."""
    image, labels = sample["image"], sample["segmentation"]
    source = labels[transform.source_channel_idx]
    sample["image"] = torch.cat([image, torch.stack([source == label for label in transform.all_labels]).to(image)])
    if transform.remove_channel_from_source:
        kept = [labels[channel] for channel in range(len(labels)) if channel != transform.source_channel_idx]
        sample["segmentation"] = torch.stack(kept)


def _change_shapes(transform: ApplyRandomBinaryOperatorTransform, sample: Sample, parameters: Parameters) -> None:
    """Makes the structuring element on the CPU, and indexes channels by a mask."""
    image = sample["image"]
    drawn = (parameters[name] for name in ("apply_to_channels", "operators", "strel_size"))
    for channel, operator, radius in zip(*drawn, strict=True):
        before = image[channel].bool()
        element = (disk if before.ndim == 2 else ball)(radius, dtype=bool)
        after = operator(before, _copied(torch.from_numpy(element), image.device))
        for other in transform.channel_idx:
            if other != channel:
                image[other].masked_fill_(after & ~before, 0)
        image[channel] = after


def _copied(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host on the device; a copy from pinned memory does not wait for it."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


def _remove_component(
    transform: RemoveRandomConnectedComponentFromOneHotEncodingTransform, sample: Sample, parameters: Parameters
) -> None:
    """Labels components with a library for the CPU; only the channels concerned go there and back."""
    if not parameters["apply_to_channels"]:
        return
    image = sample["image"]
    channels = sorted(channel % len(image) for channel in transform.channel_idx)
    on_host = {channel: image[channel].cpu() for channel in channels}
    by_index = {index: on_host[index % len(image)] for index in transform.channel_idx}
    transform._apply_to_image(by_index, **parameters)
    for channel, values in on_host.items():
        image[channel] = values.to(image.device)


def _to_regions(transform: ConvertSegmentationToRegionsTransform, sample: Sample, _: Parameters) -> None:
    """Compares with labels that lie on the CPU, by ``isin``, which sorts."""
    labels = sample["segmentation"][transform.channel_in_seg]
    sample["segmentation"] = torch.stack([_any_of(labels, region.tolist()) for region in transform.regions])


def _any_of(labels: Tensor, wanted: list[float]) -> Tensor:
    found = torch.zeros_like(labels, dtype=torch.bool)
    for label in wanted:
        found |= labels == label
    return found


# Each takes the transform, a sample, which it changes, and the parameters.
_OWN: dict[type[BasicTransform], Callable[[Any, Sample, Parameters], None]] = {
    GaussianNoiseTransform: _add_noise,
    GaussianBlurTransform: _blur,
    MaskImageTransform: _mask,
    RemoveLabelTransform: _remove_label,
    MoveSegAsOneHotToDataTransform: _add_one_hot,
    ApplyRandomBinaryOperatorTransform: _change_shapes,
    RemoveRandomConnectedComponentFromOneHotEncodingTransform: _remove_component,
    ConvertSegmentationToRegionsTransform: _to_regions,
}
