"""Plans and ``dataset.json`` of a model, checked before anything is built or computed with them.

A model folder may come from anywhere. nnU-Net trusts the values in its files: a wrong one shows as an error deep inside
a library, fills the memory, or writes labels that the data set does not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import LabelManager

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.path_names import component_problem
from factorizer_nnunet.nnunet.dataset_json import ENDING_KEY, LABELS_KEY, REGIONS_ORDER_KEY, DatasetJson
from factorizer_nnunet.nnunet.plan_values import check_values
from factorizer_nnunet.nnunet.plans import resolved_configuration

# Far above every network in use; a mistyped or hostile number above them would only fill the memory.
MAX_PATCH_VOXELS = 2**28
_MAX_NUMBER, _MAX_COUNT, _MAX_ENTRIES, _MAX_DEPTH = 65_536, 256, 1024, 6
_COUNTS = ("n_", "num_", "depth", "rank")  # arguments that say how often something is built or computed
_MAX_LABEL = 65_535  # nnU-Net writes labels of 8 or 16 bits
_BYTE = 255
_CORRECT = "Restore it as the training left it"


def check_plans_for_prediction(
    plans: Mapping[str, Any], configuration: str, where: str, dataset: DatasetJson
) -> dict[str, Any]:
    """Check what a prediction reads from a configuration.

    Returns:
        the settings of the configuration, with what it inherits.

    Raises:
        UserError: names the file, the key, and what is expected.
    """
    check_values(plans, configuration, where)
    settings = resolved_configuration(plans, configuration, where)
    if not settings:
        raise UserError(f"{where} has no configuration {configuration}, which the folds have")
    for key, problem in _problems(plans, settings, dataset):
        raise UserError(f"{where}, configuration {configuration}: {key} {problem}. {_CORRECT}")
    return settings


def check_dataset_for_prediction(dataset: DatasetJson) -> None:
    """Check channels, labels and file ending, which decide what is read and written.

    Raises:
        UserError: names the file, the key, and what is expected.
    """
    where = dataset.path
    ending = dataset.content.get(ENDING_KEY)
    if not isinstance(ending, str) or not ending.startswith(".") or component_problem(f"case{ending}") is not None:
        raise UserError(f"{where}: file_ending {ending!r} must be an ending such as .nii.gz. {_CORRECT}")
    if not 1 <= len(dataset.channel_names) <= _MAX_ENTRIES:
        raise UserError(f"{where}: channel_names must name the channels of the images. {_CORRECT}")
    values = dataset.label_values
    if min(values) < 0 or max(values) > _MAX_LABEL:
        raise UserError(f"{where}: label values must be 0 to {_MAX_LABEL}, not {min(values)} to {max(values)}")
    order = dataset.content.get(REGIONS_ORDER_KEY)
    if order is not None and not (isinstance(order, list) and all(type(value) is int for value in order)):
        raise UserError(f"{where}: regions_class_order {order!r} must be a list of label values. {_CORRECT}"[:400])
    try:
        labels = LabelManager(dataset.content[LABELS_KEY], order)
    except Exception as error:  # nnU-Net raises assertions, lookups and type errors here
        raise UserError(f"{where}: labels cannot be used: {' '.join(str(error).split())[:200]}. {_CORRECT}") from error
    foreground = [value for value in labels.all_labels if value != 0]
    # Without regions nnU-Net writes the number of the network's output, which must be the label's value.
    if not labels.has_regions and foreground != list(range(1, len(foreground) + 1)):
        raise UserError(f"{where}: label values {foreground} must be 1, 2, … without gaps. {_CORRECT}"[:400])
    written = order if labels.has_regions and order is not None else foreground
    if not set(written) <= set(foreground):
        raise UserError(f"{where}: regions_class_order {written} contains values that labels lack. {_CORRECT}"[:400])
    if len(foreground) < _BYTE < max(written, default=0):  # nnU-Net chooses 8 bits by the number of labels alone
        raise UserError(f"{where}: label value {max(written)} does not fit the 8 bits that nnU-Net writes")


def _problems(plans: Mapping[str, Any], settings: Mapping[str, Any], dataset: DatasetJson) -> Iterator[tuple[str, str]]:
    patch, spacing = _entries(settings, "patch_size"), _entries(settings, "spacing")
    if len(patch) not in (2, 3) or not all(type(size) is int and 1 <= size <= MAX_PATCH_VOXELS for size in patch):
        yield "patch_size", f"{_shown(patch)} must be 2 or 3 sizes in voxels, each at least 1"
    elif math.prod(patch) > MAX_PATCH_VOXELS:
        yield "patch_size", f"{_shown(patch)} must have at most {MAX_PATCH_VOXELS} voxels"
    if len(spacing) != len(patch):
        yield "spacing", f"{_shown(spacing)} must be a voxel size for each axis of the patch"
    for key in ("transpose_forward", "transpose_backward"):
        axes = _entries(plans, key)
        if any(type(axis) is not int for axis in axes) or sorted(axes) != [0, 1, 2]:
            yield key, f"{_shown(axes)} must be an order of the axes 0, 1, 2"
    for key in ("normalization_schemes", "use_mask_for_norm"):
        channels = len(dataset.channel_names)
        if len(entries := _entries(settings, key)) != channels:
            fit = f"must have an entry for each channel, {dataset.path} has {channels}: one of the two was changed"
            yield key, f"{_shown(entries)} {fit}"
    for key in ("preprocessor_name", "resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities"):
        if key not in settings:
            yield key, "is missing"
    for key in ("resampling_fn_data_kwargs", "resampling_fn_seg_kwargs", "resampling_fn_probabilities_kwargs"):
        if not isinstance(settings.get(key), Mapping):
            yield key, "must be an object"
        elif (problem := _absurd(settings[key])) is not None:
            yield key, problem
    properties = plans.get(
        "foreground_intensity_properties_per_channel", plans.get("foreground_intensity_properties_by_modality")
    )
    if not isinstance(properties, Mapping):
        yield "foreground_intensity_properties_per_channel", "must be an object"
    if not isinstance(settings.get("previous_stage"), str | None):
        yield "previous_stage", "must be the name of a configuration"
    if (problem := _absurd(settings.get("architecture", {}).get("arch_kwargs", {}))) is not None:
        yield "architecture.arch_kwargs", problem


def _absurd(value: object, key: str = "", depth: int = 0) -> str | None:
    """What no network's argument can be, anywhere within a JSON value."""
    if depth > _MAX_DEPTH:
        return "is nested too deeply"
    if isinstance(value, Mapping):
        return next(filter(None, (_absurd(entry, str(name), depth + 1) for name, entry in value.items())), None)
    if isinstance(value, list | tuple):
        if len(value) > _MAX_ENTRIES:
            return f"has {len(value)} entries in {key}"
        return next(filter(None, (_absurd(entry, key, depth + 1) for entry in value)), None)
    if isinstance(value, int | float):
        most = _MAX_COUNT if key.startswith(_COUNTS) else _MAX_NUMBER
        if not -most <= value <= most:  # also false for NaN
            return f"has {key} {_shown(value)}, which must be at most {most}"
    return None


def _entries(values: Mapping[str, Any], key: str) -> list[Any]:
    """The entries of a list; none if the value is missing or something else."""
    value = values.get(key)
    return list(value) if isinstance(value, list | tuple) else []


def _shown(value: object) -> str:
    return f"{value!r}"[:80]
