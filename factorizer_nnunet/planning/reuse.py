"""Preprocessed data that are there already: plans link to them where they would only be written again.

Which files preprocessing makes depends on a few settings of the plans (``preprocessing_settings``). Where they equal
those of other plans of the data set whose folder is whole, ``data_identifier`` names that folder: nnU-Net's own
planners of residual U-Nets share the data of its default plans in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.running.whole import newest, oldest, preprocessed_whole

_OF_PLANS = (
    "image_reader_writer",
    "transpose_forward",
    "transpose_backward",
    "foreground_intensity_properties_per_channel",
    "label_manager",
)
_OF_CONFIGURATION = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)


def preprocessing_settings(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """All that preprocessing reads from plans, but for the patch size, by which nnU-Net only divides its files."""
    settings = PlansManager(dict(plans)).get_configuration(configuration).configuration
    found = {key: plans.get(key) for key in _OF_PLANS} | {key: settings.get(key) for key in _OF_CONFIGURATION}
    return json.loads(json.dumps(found))  # lists and tuples must compare equal


def link_preprocessed(
    plans: Mapping[str, Any], dataset_folder: Path, cases: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Let configurations name whole preprocessed data that are there already, and say so.

    Args:
        plans: new plans; ``data_identifier`` of their configurations is changed in place.
        dataset_folder: the data set's folder in ``nnUNet_preprocessed``.
        cases: the raw files of each training case, as nnU-Net lists them.

    Returns:
        The configurations whose data are there.
    """
    others = list(_other_plans(dataset_folder))
    linked = []
    for name, configuration in plans["configurations"].items():
        if "data_identifier" not in configuration:
            continue  # a cascade has no data of its own
        wanted = preprocessing_settings(plans, name)
        for folder in _folders_with(wanted, others):
            if _is_whole(dataset_folder / folder, cases):
                print(
                    f"{name}: preprocessed data of equal settings are in {dataset_folder / folder} and are used; "
                    "whoever edits spacing, normalisation or resampling gives the plans a data_identifier of their own"
                )
                configuration["data_identifier"] = folder
                linked.append(name)
                break
    return linked


def outdated_configurations(old_plans: Mapping | None, new_plans: Mapping, dataset_folder: Path) -> list[str]:
    """Configurations of ``old_plans`` that have preprocessed data, which the plans now would make otherwise.

    Args:
        old_plans: the plans before, ``None`` if there were none.
        new_plans: the plans now.
        dataset_folder: the data set's folder in ``nnUNet_preprocessed``.
    """
    if old_plans is None:
        return []
    return [
        name
        for name, old in old_plans["configurations"].items()
        if "data_identifier" in old
        and (dataset_folder / old["data_identifier"]).is_dir()
        and (
            name not in new_plans["configurations"]
            or preprocessing_settings(new_plans, name) != preprocessing_settings(old_plans, name)
        )
    ]


def _other_plans(dataset_folder: Path) -> Iterable[dict]:
    """All plans of the data set that can be read, those that will be overwritten included."""
    for file in sorted(dataset_folder.glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # somebody else's, and not ours to judge
        if isinstance(content, dict) and isinstance(content.get("configurations"), dict):
            yield content


def _folders_with(wanted: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Folders whose plans give the same data; a folder that other plans name with other settings is left alone."""
    same: dict[str, bool] = {}
    for plans in others:
        for name in plans["configurations"]:
            try:
                folder = PlansManager(dict(plans)).get_configuration(name).configuration["data_identifier"]
                equal = preprocessing_settings(plans, name) == wanted
            except (AttributeError, KeyError, RuntimeError, TypeError):
                continue  # a configuration that nnU-Net cannot read either
            same[folder] = same.get(folder, True) and equal
    return [folder for folder, equal in same.items() if equal]


def _is_whole(folder: Path, cases: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a folder has exactly these cases, all whole and made after their raw files last changed."""
    written = list(folder.glob("*.pkl"))
    if {file.stem for file in written} != set(cases):
        return False
    raw = [Path(file) for case in cases.values() for file in (*case["images"], case["label"])]
    return newest(raw) < oldest(written) and all(preprocessed_whole(folder, case) for case in cases)
