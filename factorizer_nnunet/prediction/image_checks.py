"""Images of which a model would give a wrong segmentation: each is refused, with what is wrong and what to do."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.imaging.checks import constant_problem, is_faint, not_finite_problem
from factorizer_nnunet.prediction.description import NO_NORMALISATION, ModelDescription
from factorizer_nnunet.prediction.memory import MemoryLimit, case_memory, together

# An image that has so many more voxels at the model's spacing has a wrong spacing in its header: of 10 mm slices,
# 0.5 mm are 20 times as many, and 4 mm voxels in 0.5 mm are 512 times as many.
_MAX_GROWTH = 1000
_SLICE_MM = 100  # of the model's voxels: thicker is a 2D image, to which nnU-Net's readers give 999 mm and more
_FLAT = 1e-2  # a normalised image with a smaller range says nothing: nnU-Net's schemes give a range of 1 or more


def check_image(
    image: np.ndarray, properties: Mapping[str, Any], model: ModelDescription, memory: MemoryLimit | None
) -> None:
    """Check an image, (channels, *spatial), for what nnU-Net would accept, and segment wrongly or never finish.

    Raises:
        UserError: it has other channels than the model, NaN or infinity, an impossible spacing, or takes more memory.
    """
    expected = len(model.dataset.channel_names)
    if len(image) != expected:
        raise UserError(
            f"the image has {count_of(len(image), 'channel')}, the model takes {expected}, as {model.dataset.path} "
            "says. Give one file for each channel, and of a file with several volumes (4D) the one that is meant"
        )
    with np.errstate(over="ignore"):  # numbers too large for single precision become infinite, as nnU-Net converts them
        single = image.astype(np.float32, copy=False)
    if (problem := not_finite_problem(single)) is not None:
        raise UserError(f"{problem}: nnU-Net would spread them over the entire image. Correct the image")
    spacing = [float(mm) for mm in properties["spacing"]]
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise UserError(
            f"its voxels have {' × '.join(f'{mm:g}' for mm in spacing)} mm. Correct the spacing of its header"
        )
    order = model.plans.transpose_forward
    shape, original = [image.shape[1:][axis] for axis in order], [spacing[axis] for axis in order]
    target = [*original[: len(original) - len(model.configuration.spacing)], *model.configuration.spacing]
    voxels = math.prod(max(1.0, size * mm / to) for size, mm, to in zip(shape, original, target, strict=True))
    sizes = f"voxels of {' × '.join(f'{mm:g}' for mm in original)} mm in the header, {target} mm in the plans"
    if any(size == 1 and mm > _SLICE_MM * to for size, mm, to in zip(shape, original, target, strict=True)):
        raise UserError("it is a single slice (a 2D image), and the model takes volumes. Give it the complete scan")
    if any(round(size * mm / to) < 1 for size, mm, to in zip(shape, original, target, strict=True)):
        raise UserError(f"at the model's spacing it is less than a voxel long ({sizes}). Correct the header's spacing")
    if voxels > _MAX_GROWTH * math.prod(shape):
        raise UserError(f"at the model's spacing it has {voxels:.3g} voxels ({sizes}). Correct the header's spacing")
    check_memory(image, properties, [model], memory)


def check_not_flattened(channel: np.ndarray, normalised: np.ndarray, number: int, model: ModelDescription) -> None:
    """Check that something of a channel that is not constant is left after its normalisation, in single precision.

    Args:
        channel: (*spatial), as read.
        normalised: (*spatial) of the preprocessed image, which may be cropped and resampled.
        number: of the channel.
        model: whose normalisation it is.

    Raises:
        UserError: nothing is left.
    """
    scheme = model.configuration.normalization_schemes[number]
    lost = np.ptp(normalised) < _FLAT or is_faint(channel)
    if not lost or scheme == NO_NORMALISATION or constant_problem(channel) is not None:
        return
    raise UserError(
        f"channel {number} ({model.dataset.channel_names[number]}) has values from {channel.min():g} to "
        f"{channel.max():g}, of which {scheme} leaves nothing. Give it the scale of the training's images"
    )


def check_memory(
    image: np.ndarray,
    properties: Mapping[str, Any],
    models: Sequence[ModelDescription],
    memory: MemoryLimit | None,
) -> None:
    """Check that an image, (channels, *spatial), can be predicted by these models together.

    Raises:
        UserError: it takes more memory than it may.
    """
    order = models[0].plans.transpose_forward
    shape = [image.shape[1:][axis] for axis in order]
    spacing = [float(properties["spacing"][axis]) for axis in order]
    limit, whose = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this machine has"
    if memory is not None:
        limit, whose = memory.size, "it may take"
    least = MemoryLimit(limit, on_gpu=True) if memory is None else memory  # unknown: as little as possible
    needed = together([case_memory(shape, spacing, model, limit=least) for model in models]).of_processes(0, 0)
    if needed > limit:
        plans = " and ".join(str([*model.configuration.spacing]) for model in models)
        raise UserError(
            f"it needs {needed / 1e9:.1f} GB at the model's spacing (voxels of "
            f"{' × '.join(f'{mm:g}' for mm in spacing)} mm in the header, {plans} mm in the plans), {whose} "
            f"{limit / 1e9:.1f} GB. Free memory, raise --memory, or predict it on another machine"
        )
