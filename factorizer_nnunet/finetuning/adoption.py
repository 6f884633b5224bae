"""What of a model's plans is used for a new data set: decided from numbers, then applied to planned plans.

The network comes with the weights, and with it the patch. Voxel size, order of the axes and normalisation are those of
the model where they fit: its weights expect images like those it was trained on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factorizer_nnunet.core.wording import lengths
from factorizer_nnunet.finetuning.matching import Matching
from factorizer_nnunet.finetuning.source import SourceModel
from factorizer_nnunet.nnunet.plans import MEDIAN_SHAPE, MEDIAN_SPACING, reordered
from factorizer_nnunet.planning.image_geometry import ImageGeometry
from factorizer_nnunet.planning.templates import MAX_PADDING, MAX_RESAMPLING

ENTRY = "finetuned_from"  # of the plans: the model, and what its channels and classes became
# With voxels up to this ratio of sides, nnU-Net's planner gives all axes the same kernels and strides at first.
_ISOTROPIC = 2.0
_INTENSITIES = "foreground_intensity_properties_per_channel"
_OF_OTHERS = ("inherits_from", "next_stage", "previous_stage")  # settings that name other configurations


@dataclass(frozen=True)
class Adoption:
    """Decisions about a model's plans.

    Attributes:
        keeps_spacing: whether images are resampled to the model's voxel size; otherwise to the data's own.
        keeps_axes: whether the axes have the model's order; otherwise the one that is planned for the data.
        rows: each setting with what it is and why, for the user.
    """

    keeps_spacing: bool
    keeps_axes: bool
    rows: tuple[tuple[str, str], ...]


def decide(source: SourceModel, images: ImageGeometry, channels: Matching) -> Adoption:
    """Decide what fits.

    Args:
        source: the model.
        images: typical geometry of the new images, axes in nnU-Net's reading order.
        channels: where their channels come from.
    """
    settings = source.settings
    ndim, spacing = source.ndim, [float(mm) for mm in settings["spacing"]]
    of_data = _order_of(images.spacing)
    of_model = list(source.model.plans.transpose_forward)
    keeps_axes = of_data == of_model or (ndim == 3 and max(spacing) < _ISOTROPIC * min(spacing))
    order = of_model if keeps_axes else of_data
    data_spacing = [images.spacing[axis] for axis in order][3 - ndim :]
    sizes = [images.shape[axis] for axis in order][3 - ndim :]
    ratio = max(max(a / b, b / a) for a, b in zip(data_spacing, spacing, strict=True))
    keeps_spacing = ratio <= MAX_RESAMPLING
    rows = [
        ("network", f"{_class(source.architecture)}, as in the model"),
        ("spacing", _spacing(keeps_spacing, spacing, data_spacing)),
        ("patch", _patch(settings["patch_size"], spacing if keeps_spacing else data_spacing, data_spacing, sizes)),
        ("axes", "as in the model" if keeps_axes else f"as planned for the data: {of_data}, in the model {of_model}"),
        ("batch size", f"{settings['batch_size']}, as in the model"),
    ]
    return Adoption(keeps_spacing, keeps_axes, (*rows, *_normalization_rows(source, channels)))


def adopted_plans(
    planned: Mapping[str, Any],
    source: SourceModel,
    channels: Matching,
    adoption: Adoption,
    configuration: str,
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """The plans of a data set with the model's settings, reduced to one configuration.

    Args:
        planned: what our planner plans for the data set, under the name of the new plans.
        source: the model.
        channels: where the channels of the data set come from.
        adoption: from ``decide``.
        configuration: the name of the only configuration.
        origin: the entry ``finetuned_from``.
    """
    ndim, settings = source.ndim, source.settings
    order = source.model.plans.transpose_forward if adoption.keeps_axes else planned["transpose_forward"]
    base = planned["configurations"]["2d" if ndim == 2 else "3d_fullres"]
    plans = reordered({**planned, "configurations": {configuration: base}}, order)
    base = plans["configurations"][configuration]
    spacing = [float(mm) for mm in (settings if adoption.keeps_spacing else base)["spacing"]]
    originals = plans[MEDIAN_SHAPE][3 - ndim :], plans[MEDIAN_SPACING][3 - ndim :]
    schemes, masks = _per_channel(source, channels, base)
    new = {
        **{key: value for key, value in settings.items() if key not in _OF_OTHERS},
        "data_identifier": f"{planned['plans_name']}_{configuration}",
        "spacing": spacing,
        "median_image_size_in_voxels": [size * old / mm for size, old, mm in zip(*originals, spacing, strict=True)],
        "normalization_schemes": schemes,
        "use_mask_for_norm": masks,
        "architecture": copy.deepcopy(dict(source.architecture)),
    }
    return {
        **plans,
        _INTENSITIES: _intensities(source, channels, planned),
        "configurations": {configuration: new},
        ENTRY: dict(origin),
    }


def _order_of(spacing: Sequence[float]) -> list[int]:
    """The order of axes that nnU-Net plans: the coarsest first."""
    coarsest = max(range(3), key=lambda axis: spacing[axis])
    return [coarsest, *(axis for axis in range(3) if axis != coarsest)]


def _per_channel(source: SourceModel, channels: Matching, base: Mapping[str, Any]) -> tuple[list[str], list[bool]]:
    """Normalisation of each channel: the model's where the channel comes from it."""
    settings = source.settings
    chosen = [
        (settings if number is not None else base, position if number is None else number)
        for position, number in enumerate(channels.sources)
    ]
    schemes = [entries["normalization_schemes"][number] for entries, number in chosen]
    return schemes, [bool(entries["use_mask_for_norm"][number]) for entries, number in chosen]


def _intensities(source: SourceModel, channels: Matching, planned: Mapping[str, Any]) -> dict[str, Any]:
    """Percentiles and the like, which only CT is normalised with: the model's where the channel comes from it."""
    of_model, of_data = source.model.plans.plans.get(_INTENSITIES, {}), planned[_INTENSITIES]
    return {
        str(position): copy.deepcopy(
            of_data[str(position)] if number is None else of_model.get(str(number), of_data[str(position)])
        )
        for position, number in enumerate(channels.sources)
    }


def _normalization_rows(source: SourceModel, channels: Matching) -> Iterator[tuple[str, str]]:
    schemes = source.settings["normalization_schemes"]
    for name, number in zip(channels.new, channels.sources, strict=True):
        what = "by its name, as nnU-Net plans it" if number is None else f"{schemes[number]}, as in the model"
        yield f"normalisation of {name}", what


def _class(architecture: Mapping[str, Any]) -> str:
    return str(architecture["network_class_name"]).rpartition(".")[2]


def _spacing(keeps: bool, of_model: Sequence[float], of_data: Sequence[float]) -> str:
    if keeps:
        return f"{lengths(of_model)} mm, as in the model; the images have {lengths(of_data)} mm"
    return (
        f"{lengths(of_data)} mm, that of the images: to the model's {lengths(of_model)} mm they would be resampled by "
        f"more than a factor of {MAX_RESAMPLING:g}"
    )


def _patch(patch: Sequence[int], spacing: Sequence[float], of_data: Sequence[float], sizes: Sequence[float]) -> str:
    text = f"{lengths(patch)} voxels, as in the model"
    patch_sides = [size * mm for size, mm in zip(patch, spacing, strict=True)]
    image_sides = [size * mm for size, mm in zip(sizes, of_data, strict=True)]
    if any(patch_mm > MAX_PADDING * image_mm for patch_mm, image_mm in zip(patch_sides, image_sides, strict=True)):
        text += f"; much of it is padding, since the images are {lengths(image_sides)} mm"
    return text
