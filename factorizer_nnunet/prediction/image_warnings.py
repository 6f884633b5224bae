"""Images that a model can predict, but that give reason to doubt: a user is warned and decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from factorizer_nnunet.core.wording import lengths
from factorizer_nnunet.imaging.checks import constant_problem
from factorizer_nnunet.nnunet.absent_channels import channels_of_zeros
from factorizer_nnunet.nnunet.training_images import orientation_of_properties
from factorizer_nnunet.prediction.description import NO_NORMALISATION, ModelDescription

_CROPPED_SHAPE = "shape_after_cropping_and_before_resampling"  # nnU-Net's; along the axes of its reader, too
_FAR = 2.0  # factor beyond voxel sizes and extents of the training
_LITTLE_CONTRAST = 0.1  # of a normalised image without its extremes, in standard deviations
_SAMPLED_VOXELS = 100_000  # are enough for percentiles
_LEAST_OF_PATCH = 0.2  # an image that is shorter along an axis is unlike those of the training


def image_warnings(
    image: np.ndarray, data: np.ndarray, properties: Mapping[str, Any], models: Sequence[ModelDescription]
) -> Iterator[str]:
    """What gives reason to doubt, a line each.

    Args:
        image: (channels, *spatial), as read.
        data: (channels, *spatial), as preprocessed for the first model.
        properties: of the case, from that preprocessing, with ``spacing`` in mm.
        models: which predict it.
    """
    first = models[0]
    yield from _empty_channels(image, first.dataset.channel_names, all(model.takes_absent for model in models))
    yield from _mostly_padding(image.shape[1:], properties["spacing"], first)
    yield from _unlike_the_training(properties, first)
    yield from dict.fromkeys(warning for model in models for warning in _turned(properties, model))
    yield from _outshone_channels(data, first)


def _empty_channels(image: np.ndarray, names: Sequence[str], may_be_absent: bool) -> tuple[str, ...]:
    """Warnings about channels of an image, (channels, *spatial), such as "channel 1 (T2) is constant: …"."""
    absent = channels_of_zeros(image) if may_be_absent else ()
    problems = ["is absent" if number in absent else constant_problem(channel) for number, channel in enumerate(image)]
    return tuple(
        f"channel {number} ({name}) {problem}"
        for number, (name, problem) in enumerate(zip(names, problems, strict=True))
        if problem is not None
    )


def _mostly_padding(shape: Sequence[int], spacing: Sequence[float], model: ModelDescription) -> Iterator[str]:
    """A warning about an image that fills little of a patch along an axis, such as a slice given to a 3D model."""
    order, settings = model.plans.transpose_forward, model.configuration
    axes = len(settings.patch_size)
    image_mm = [shape[axis] * float(spacing[axis]) for axis in order][-axes:]
    patch_mm = [size * mm for size, mm in zip(settings.patch_size, settings.spacing, strict=True)]
    if any(image < _LEAST_OF_PATCH * patch for image, patch in zip(image_mm, patch_mm, strict=True)):
        sizes = [lengths(mm) for mm in (image_mm, patch_mm)]
        yield f"it has {sizes[0]} mm, a patch of the model {sizes[1]} mm: most is padding. Is it the right image?"


def _unlike_the_training(properties: Mapping[str, Any], model: ModelDescription) -> Iterator[str]:
    """A warning about an image with other voxels or another extent than those of the training, by far."""
    spacing = [float(mm) for mm in properties["spacing"]]
    size = [count * mm for count, mm in zip(properties[_CROPPED_SHAPE], spacing, strict=True)]
    if unlike := model.training.unlike(spacing, size, _FAR, _FAR):
        yield f"it is unlike the training's images: {'; '.join(unlike)}. Is its header right?"


def _turned(properties: Mapping[str, Any], model: ModelDescription) -> Iterator[str]:
    """A warning about axes that lead elsewhere than those of all training images; of readers that keep headers."""
    code = orientation_of_properties(properties)
    known = model.training.orientations
    if code is not None and known and code not in known:
        yield (
            f"its axes lead to {code}, those of the training's images to {' or '.join(known)} (L, R: left, right; P, "
            "A: back, front; S, I: up, down), and nnU-Net does not turn images. Turn all channels: "
            f"SimpleITK.DICOMOrient(image, '{known[0]}')"
        )


def _outshone_channels(data: np.ndarray, model: ModelDescription) -> Iterator[str]:
    """Warnings about normalised channels in which single voxels leave nearly no contrast to all others."""
    for number, (name, scheme) in enumerate(
        zip(model.dataset.channel_names, model.configuration.normalization_schemes, strict=True)
    ):
        some = data[number].ravel()[:: max(1, data[number].size // _SAMPLED_VOXELS)]
        low, high = np.percentile(some, (0.5, 99.5))
        if scheme != NO_NORMALISATION and high - low < _LITTLE_CONTRAST and np.ptp(data[number]) > 1:
            yield (
                f"channel {number} ({name}): few voxels are so much brighter or darker than all others that the "
                "normalisation leaves those without contrast. Correct the image"
            )
