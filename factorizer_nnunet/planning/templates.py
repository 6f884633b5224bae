"""Ready settings for kinds of data, laid over what nnU-Net plans for a data set.

A template fixes voxel size, patch, batch and network of ``3d_fullres``; all else in the plans (intensities,
normalisation, resampling, labels) stays what nnU-Net's planner finds in the data. Templates are the JSON files of
``factorizer_nnunet.plans``, or files of the user in the same form; docs/planning_templates.md describes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.config_values import is_integer
from factorizer_nnunet.planning.architecture import architecture_entry
from factorizer_nnunet.planning.image_geometry import ImageGeometry
from factorizer_nnunet.planning.planner import nnUNetPlannerFactorizer

TEMPLATE_CONFIGURATION = "3d_fullres"
LIST = "factorizer-nnunet plan --template list shows the templates"
MAX_RESAMPLING = 3.0  # between the voxel size of the data and the template's, along any axis, in either direction
MAX_PADDING = 1.5  # side of the patch over that of the typical image; nnU-Net's own planner stays near 1


@dataclass(frozen=True)
class Template:
    """The content of a template's file; axes are those of nnU-Net's plans, the coarsest first, else z, y, x."""

    name: str  # the file's, without .json
    source: str  # where the settings come from, in one line
    channels: int | None  # of the images that it is made for; None: any number
    spacing: list[float]  # voxel size in mm
    patch_size: list[int]  # voxels
    batch_size: int
    arch_kwargs: dict[str, Any]  # arguments of network.Factorizer


def template_sources() -> dict[str, str]:
    """Name and source of every template that comes with the package."""
    files = sorted(Path(str(resources.files("factorizer_nnunet.plans"))).glob("*.json"))
    return {file.stem: load_json_object(file, "Correct the template")["source"] for file in files}


def load_template(name: str) -> Template:
    """Read a template and check that its network can be built and takes its patch.

    Args:
        name: of a template of the package, or the path of a file, which ends in ``.json``.

    Raises:
        UserError: there is no such template, or its content is impossible; naming the file.
    """
    packaged = Path(str(resources.files("factorizer_nnunet.plans")))
    file = Path(name) if name.endswith(".json") else packaged / f"{name}.json"
    if not file.is_file():
        known = f"give the path of a file, or one of {', '.join(template_sources())}"
        raise UserError(f"there is no template {name}: {known}. {LIST}")
    content = load_json_object(file, "Correct the template")
    keys = [field.name for field in fields(Template) if field.name != "name"]
    wrong = [f"lacks {key!r}" for key in keys if key not in content]
    wrong += [f"has an unknown key {key!r}" for key in content if key not in keys]
    if wrong:
        raise UserError(f"template {file} {wrong[0]}: it must have {', '.join(keys)}, and nothing else")
    template = Template(name=file.stem, **content)
    problem = _problem(template)
    if problem is not None:
        raise UserError(f"template {file}: {problem}. Correct it")
    return template


def _problem(template: Template) -> str | None:
    """What is impossible in the content of a template's file; None if nothing."""
    if not isinstance(template.source, str) or not template.source.strip() or "\n" in template.source:
        return f"source must be one line of text, not {template.source!r}"
    if template.channels is not None and not _is_count(template.channels):
        return f"channels must be a number of channels, or null for any, not {template.channels!r}"
    if not _is_count(template.batch_size):
        return f"batch_size must be a number of patches, not {template.batch_size!r}"
    patch, spacing = template.patch_size, template.spacing
    if not isinstance(patch, list) or len(patch) != 3 or not all(map(_is_count, patch)):
        return f"patch_size must be three numbers of voxels, not {patch!r}"
    if not isinstance(spacing, list) or len(spacing) != 3 or not all(map(_is_length, spacing)):
        return f"spacing must be three voxel sizes in mm, not {spacing!r}"
    if max(spacing) > spacing[0]:
        return f"spacing {spacing} must begin with the coarsest axis, as nnU-Net orders the axes"
    if not isinstance(template.arch_kwargs, Mapping):
        return f"arch_kwargs must map names to values, not {template.arch_kwargs!r}"
    try:
        with torch.device("meta"):  # parameters without memory
            config = Factorizer(input_channels=1, num_classes=2, **template.arch_kwargs).config
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last two by numbers too large for torch
        return f"no network can be built from arch_kwargs: {error}"
    total = list(config.total_stride)
    if len(total) != 3 or any(size % stride for size, stride in zip(patch, total, strict=True)):
        return f"patch_size {patch} must be multiples of {total}, the product of the strides"
    if config.stored_patch_size not in (None, tuple(patch)):
        return f"patch_size is {patch}, but arch_kwargs.patch_size is {list(config.stored_patch_size)}"
    return None


def check_fit(template: Template, images: ImageGeometry, dataset: str) -> None:
    """Refuse a template for data that it is not made for.

    Args:
        template: the settings.
        images: what is known of the images, in nnU-Net's order of axes.
        dataset: name of the data set, for the message.

    Raises:
        UserError: the images are 2D, have other channels, or are of another scale; naming what differs.
    """
    reason = _misfit(template, images)
    if reason is not None:
        raise UserError(
            f"template {template.name} does not fit {dataset}: {reason}. Plan without --template, choose another one "
            f"({LIST}), or correct a copy of its file and give --template FILE.json"
        )


def _misfit(template: Template, images: ImageGeometry) -> str | None:
    if template.channels not in (None, images.num_channels):
        return f"it is made for images of {template.channels} channels, these have {images.num_channels}"
    if min(images.shape) == 1:
        return f"it is made for 3D images, these are 2D ({_sizes(images.shape)} voxels)"
    for data, planned in zip(images.spacing, template.spacing, strict=True):
        if max(data / planned, planned / data) > MAX_RESAMPLING:
            return (
                f"voxels of {_sizes(images.spacing)} mm would be resampled to {_sizes(template.spacing)} mm, by more "
                f"than a factor of {MAX_RESAMPLING:g} along an axis"
            )
    patch_mm = [size * mm for size, mm in zip(template.patch_size, template.spacing, strict=True)]
    image_mm = [size * mm for size, mm in zip(images.shape, images.spacing, strict=True)]
    if any(patch > MAX_PADDING * image for patch, image in zip(patch_mm, image_mm, strict=True)):
        return (
            f"its patch of {_sizes(patch_mm)} mm is much larger than the images of {_sizes(image_mm)} mm, so that "
            "mostly padding would be trained on"
        )
    return None


def planner_for_template(template: Template) -> type[nnUNetPlannerFactorizer]:
    """The planner that lays the template over what it plans; to be run with the template's voxel size as target."""

    class TemplatePlanner(nnUNetPlannerFactorizer):
        def save_plans(self, plans: dict) -> None:
            # nnU-Net returns this very object as the plans, so it is changed in place.
            plans.update(laid_over(plans, template))
            print(
                f"The template {template.name} sets patch, batch and network of {TEMPLATE_CONFIGURATION}, its only one"
            )
            super().save_plans(plans)

    TemplatePlanner.__name__ = f"{nnUNetPlannerFactorizer.__name__}_{template.name}"  # stands in the plans
    return TemplatePlanner


def laid_over(plans: Mapping[str, Any], template: Template) -> dict[str, Any]:
    """The plans of a data set with the template's settings, and with ``3d_fullres`` alone.

    Args:
        plans: of nnU-Net's planner, for voxels of ``template.spacing``.
        template: the settings.
    """
    planned = plans["configurations"][TEMPLATE_CONFIGURATION]
    settings = {
        "batch_size": template.batch_size,
        "patch_size": list(template.patch_size),
        "architecture": architecture_entry(template.arch_kwargs),
    }
    return {
        **plans,
        "template": {"name": template.name, "source": template.source},
        "configurations": {TEMPLATE_CONFIGURATION: {**planned, **settings}},
    }


def _is_count(value: object) -> bool:
    return is_integer(value) and value >= 1


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _sizes(values: list[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
