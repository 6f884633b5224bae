"""Ready settings for kinds of data, which replace part of what nnU-Net plans for a data set.

A template fixes voxel size, patch, batch and network of ``3d_fullres``; everything else in the plans (intensities,
normalisation, resampling, labels) is planned by nnU-Net from the data. Templates are the JSON files in
``factorizer_nnunet.plans``, or users' files of the same form; docs/planning_templates.md describes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.config_values import is_count, is_number
from factorizer_nnunet.planning.architecture import architecture_entry
from factorizer_nnunet.planning.image_geometry import ImageGeometry
from factorizer_nnunet.planning.planner import nnUNetPlannerFactorizer

TEMPLATE_CONFIGURATION = "3d_fullres"
_LIST = "factorizer-nnunet plan --template list shows the templates"
MAX_RESAMPLING = 3.0  # largest ratio of voxel sizes of data and template, along any axis, in either direction
MAX_PADDING = 1.5  # largest ratio of the sides of patch and typical image; about 1 in nnU-Net's own plans


@dataclass(frozen=True)
class Template:
    """The content of a template file; axes as in nnU-Net's plans: the coarsest first, otherwise z, y, x."""

    name: str  # of the file, without .json
    source: str  # origin of the settings, one line
    channels: int | None  # that images must have; None: any number
    spacing: list[float]  # voxel size in mm
    patch_size: list[int]  # voxels
    batch_size: int
    arch_kwargs: dict[str, Any]  # arguments of network.Factorizer


def template_sources() -> dict[str, str]:
    """Names and sources of the templates in the package."""
    files = sorted(Path(str(resources.files("factorizer_nnunet.plans"))).glob("*.json"))
    return {file.stem: load_json_object(file, "Correct the template")["source"] for file in files}


def load_template(name: str) -> Template:
    """Read a template and check that its network can be built and takes its patch.

    Args:
        name: name of a template in the package, or path of a file that ends in ``.json``.

    Raises:
        UserError: the template does not exist, or its content is invalid; the message names the file.
    """
    packaged = Path(str(resources.files("factorizer_nnunet.plans")))
    file = Path(name) if name.endswith(".json") else packaged / f"{name}.json"
    if not file.is_file():
        known = f"give the path of a file, or one of {', '.join(template_sources())}"
        raise UserError(f"there is no template {name}: {known}. {_LIST}")
    content = load_json_object(file, "Correct the template")
    keys = [field.name for field in fields(Template) if field.name != "name"]
    wrong = [f"lacks {key!r}" for key in keys if key not in content]
    wrong += [f"has an unknown key {key!r}" for key in content if key not in keys]
    if wrong:
        raise UserError(f"template {file} {wrong[0]}: it must have exactly {', '.join(keys)}")
    problem = _problem(content)
    if problem is not None:
        raise UserError(f"template {file}: {problem}. Correct it")
    return Template(name=file.stem, **content)


def _problem(content: Mapping[str, Any]) -> str | None:
    """What is wrong with the content of a template file; None if nothing."""
    source, channels, batch_size, arch_kwargs = (
        content[key] for key in ("source", "channels", "batch_size", "arch_kwargs")
    )
    patch, spacing = content["patch_size"], content["spacing"]
    if not isinstance(source, str) or not source.strip() or "\n" in source:
        return f"source must be one line of text, not {source!r}"
    if channels is not None and not is_count(channels):
        return f"channels must be a number of channels, or null for any, not {channels!r}"
    if not is_count(batch_size):
        return f"batch_size must be a number of patches, not {batch_size!r}"
    if not isinstance(patch, list) or len(patch) != 3 or not all(map(is_count, patch)):
        return f"patch_size must be three numbers of voxels, not {patch!r}"
    if not isinstance(spacing, list) or len(spacing) != 3 or not all(is_number(mm) and mm > 0 for mm in spacing):
        return f"spacing must be three voxel sizes in mm, not {spacing!r}"
    if max(spacing) > spacing[0]:
        return f"spacing {spacing} must begin with the coarsest axis, as nnU-Net orders the axes"
    if not isinstance(arch_kwargs, Mapping):
        return f"arch_kwargs must map names to values, not {arch_kwargs!r}"
    try:
        with torch.device("meta"):  # parameters without memory
            config = Factorizer(input_channels=1, num_classes=2, **arch_kwargs).config
    except (
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ) as error:  # the last two: numbers too large
        return f"no network can be built from arch_kwargs: {error}"
    total = list(config.total_stride)
    if len(total) != 3 or any(size % stride for size, stride in zip(patch, total, strict=True)):
        return f"patch_size {patch} must be multiples of {total}, the product of the strides"
    if config.stored_patch_size not in (None, tuple(patch)):
        return f"patch_size is {patch}, but arch_kwargs.patch_size is {list(config.stored_patch_size)}"
    return None


def check_fit(template: Template, images: ImageGeometry, dataset: str) -> None:
    """Refuse a template that does not fit the data.

    Args:
        template: the settings.
        images: typical geometry of the images, axes in nnU-Net's order.
        dataset: name of the data set, for the message.

    Raises:
        UserError: the images are 2D, have other channels or another scale; the message says which.
    """
    reason = _misfit(template, images)
    if reason is not None:
        raise UserError(
            f"template {template.name} does not fit {dataset}: {reason}. Plan without --template, choose another one "
            f"({_LIST}), or correct a copy of its file and give --template FILE.json"
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
            f"its patch of {_sizes(patch_mm)} mm is much larger than the images of {_sizes(image_mm)} mm, so most of "
            "it would be padding"
        )
    return None


def planner_for_template(template: Template) -> type[nnUNetPlannerFactorizer]:
    """The planner that applies the template to its plans; its target spacing must be that of the template."""

    class TemplatePlanner(nnUNetPlannerFactorizer):
        def save_plans(self, plans: dict[str, Any]) -> None:
            # nnU-Net returns this object as the plans, so it is changed in place.
            plans.update(apply_template(plans, template))
            print(
                f"The template {template.name} sets patch, batch and network of {TEMPLATE_CONFIGURATION}, the only one"
            )
            super().save_plans(plans)

    TemplatePlanner.__name__ = f"{nnUNetPlannerFactorizer.__name__}_{template.name}"  # is stored in the plans
    return TemplatePlanner


def apply_template(plans: Mapping[str, Any], template: Template) -> dict[str, Any]:
    """The plans of a data set with the template's settings, reduced to ``3d_fullres``.

    Args:
        plans: plans of nnU-Net's planner for voxels of ``template.spacing``.
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


def _sizes(values: list[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
