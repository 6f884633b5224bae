"""Plans for an authors' network, derived from existing plans of the data set; no files are read or written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.nnunet.plans import reordered
from factorizer_nnunet.planning.architecture import architecture_entry

AXES = ("xyz", "plans")
PLANNER = "factorizer-nnunet import-upstream"  # not our planner, so planning does not overwrite these plans
# What nnU-Net passes to a network class in addition to ``arch_kwargs``.
_GIVEN_BY_NNUNET = ("input_channels", "num_classes", "deep_supervision")
_REQUIRED = ("batch_size", "median_image_size_in_voxels", "patch_size", "spacing")
_MIN_BATCH_SIZE = 2  # nnU-Net's


def upstream_plans(
    base: Mapping[str, Any],
    configuration: str,
    name: str,
    arguments: Mapping[str, Any],
    axes: str = "xyz",
    spacing_mm: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Plans with one configuration: that of ``base``, with the authors' network and patch size.

    Args:
        base: plans of the data set.
        configuration: a configuration in them; inherited settings are filled in, so that it stands alone.
        name: name of the new plans.
        arguments: arguments of ``network.Factorizer``, including ``patch_size``.
        axes: order of the axes for the network: ``xyz`` as in the authors' loaders, ``plans`` as in ``base``.
        spacing_mm: voxel size in the order of the patch's axes; None is that of ``base``.

    Raises:
        ValueError: ``base`` does not have the configuration, or it does not fit the network.
    """
    settings = _resolved(base, configuration)
    patch = list(arguments["patch_size"])
    _check_fit(configuration, settings, patch, spacing_mm)
    ndim = len(patch)
    forward = list(base["transpose_forward"])
    order = _axis_order(forward, ndim) if axes == "xyz" else forward
    plans = reordered({**base, "configurations": {configuration: settings}}, order)
    settings = plans["configurations"][configuration]
    spacing = [float(mm) for mm in (settings["spacing"] if spacing_mm is None else spacing_mm)]
    sizes = zip(settings["median_image_size_in_voxels"], settings["spacing"], spacing, strict=True)
    new = {
        **{key: value for key, value in settings.items() if key not in ("inherits_from", "next_stage")},
        "data_identifier": f"{name}_{configuration}",
        "batch_size": _batch_size(settings["batch_size"], math.prod(settings["patch_size"]), math.prod(patch)),
        "patch_size": patch,
        "median_image_size_in_voxels": [size * old / mm for size, old, mm in sizes],
        "spacing": spacing,
        "architecture": architecture_entry({k: v for k, v in arguments.items() if k not in _GIVEN_BY_NNUNET}),
    }
    return {
        **plans,
        "plans_name": name,
        "experiment_planner_used": PLANNER,
        "configurations": {configuration: new},
    }


def _check_fit(
    configuration: str, settings: Mapping[str, Any], patch: Sequence[int], spacing_mm: Sequence[float] | None
) -> None:
    ndim = len(settings["patch_size"])
    if ndim != len(patch):
        raise ValueError(f"{configuration} has {ndim} axes, the weights' spatial_size {list(patch)} has {len(patch)}")
    if spacing_mm is not None and len(spacing_mm) != ndim:
        raise ValueError(
            f"the spacing {list(spacing_mm)} has {len(spacing_mm)} values, {configuration} has {ndim} axes"
        )
    if settings.get("previous_stage") is not None:
        raise ValueError(
            f"{configuration} is the second stage of a cascade, which also gets a segmentation; the "
            "authors' networks get only images"
        )


def _resolved(base: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """The configuration with all inherited settings."""
    if configuration not in base["configurations"]:
        raise ValueError(f"there is no configuration {configuration!r}, only {', '.join(base['configurations'])}")
    try:
        settings = PlansManager(dict(base)).get_configuration(configuration).configuration
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"nnU-Net cannot read configuration {configuration}: {error}") from error
    missing = [key for key in _REQUIRED if key not in settings]
    if missing:
        raise ValueError(f"configuration {configuration} has no {missing[0]!r}")
    return settings


def _axis_order(forward: Sequence[int], ndim: int) -> list[int]:
    """``transpose_forward`` that gives x before y before z, where nnU-Net reads (z, y, x).

    In 2D the first axis, along which nnU-Net takes slices, stays the first.
    """
    kept = list(forward[: 3 - ndim])
    return kept + sorted(forward[3 - ndim :], reverse=True)


def _batch_size(old: int, old_voxels: int, voxels: int) -> int:
    """Keep the number of voxels in a batch, with at most as many patches as before, and two if there were two."""
    return max(min(old, _MIN_BATCH_SIZE), min(old, old * old_voxels // voxels))
