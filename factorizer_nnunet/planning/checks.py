"""Checks of all input of planning, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.dataset_check.raw import RawDataset
from factorizer_nnunet.network import PLANNED_FORMS, VARIANTS
from factorizer_nnunet.network.config_values import is_number
from factorizer_nnunet.nnunet.fold_checks import checked_folds
from factorizer_nnunet.nnunet.folds import Fold, read_folds
from factorizer_nnunet.nnunet.names import PLANS, SPLITS_FILE
from factorizer_nnunet.nnunet.plans import check_names, resolved_configuration
from factorizer_nnunet.nnunet.provenance import Derived
from factorizer_nnunet.planning.planner import CASCADE, DEFAULT_CONFIGURATIONS, nnUNetPlannerFactorizer
from factorizer_nnunet.planning.sizes import SIZES

_LARGEST_TARGET_GB = 10_000  # far above any GPU
_FINGERPRINT_TYPES: dict[str, type | tuple[type, ...]] = {
    "spacings": list,
    "shapes_after_crop": list,
    "foreground_intensity_properties_per_channel": dict,
    "median_relative_size_after_cropping": (int, float),
}
_INTENSITIES = ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")


def check_size_and_variant(size: str | None, variant: str | None) -> None:
    """Refuse unknown names, and a size together with a published variant, which has widths and depth of its own."""
    if size is not None and size not in SIZES:
        raise UserError(f"unknown size {size!r}: choose from {', '.join(SIZES)}")
    if variant is not None and variant not in VARIANTS:
        raise UserError(f"unknown variant {variant!r}: choose from {', '.join(VARIANTS)}")
    if size is not None and variant not in (None, *PLANNED_FORMS):
        raise UserError(
            f"--size {size} and --variant {variant} exclude each other: a published variant has its own widths and "
            "depth; give only one of them, with --gpu-memory-target if needed"
        )


def check_arguments(plans_name: str, gpu_memory_target_gb: float | None, num_processes: int) -> None:
    """Refuse impossible memory targets and numbers, and names that are not usable for a plans file."""
    if gpu_memory_target_gb is not None and not 0 < gpu_memory_target_gb <= _LARGEST_TARGET_GB:
        raise UserError(
            f"the GPU memory target is {gpu_memory_target_gb} GB: give a number above 0 and up to "
            f"{_LARGEST_TARGET_GB}, such as 8"
        )
    if num_processes < 1:
        raise UserError(f"the number of processes is {num_processes}: give 1 or more")
    if not plans_name or Path(plans_name).name != plans_name or plans_name.endswith(".json"):
        raise UserError(
            f"{plans_name!r} cannot name a plans file: give a name without folders and without .json, "
            f"such as {PLANS}_16GB"
        )
    if plans_name.startswith("nnUNet") and not plans_name.startswith("nnUNetFactorizer"):
        raise UserError(f"{plans_name} is a name of nnU-Net's own planners: choose another, such as {PLANS}_16GB")


def load_own_plans(plans_file: Path) -> dict[str, Any] | None:
    """The plans that planning would overwrite, or None; those of another planner are refused."""
    if not plans_file.is_file():
        return None
    fix = f"Remove {plans_file} or choose another name with --plans-name"
    plans = load_json_object(plans_file, fix)
    planner = plans.get("experiment_planner_used")
    if not str(planner).startswith(nnUNetPlannerFactorizer.__name__):
        raise UserError(
            f"{plans_file} was made by {planner or 'another planner'} and is not overwritten: "
            "choose another name with --plans-name"
        )
    if not isinstance(plans.get("configurations"), dict):
        raise UserError(f"{plans_file} has no configurations. {fix}")
    check_names(plans, plans_file)
    try:
        for name in plans["configurations"]:
            resolved_configuration(plans, name, str(plans_file))
    except UserError as error:
        raise UserError(f"{error}. {fix}") from error
    return plans


def check_own_files(files: Iterable[Path]) -> None:
    """Refuse folders, pipes and links to nothing in the place of files that planning reads and writes."""
    for file in files:
        if os.path.lexists(file) and not file.is_file():
            raise UserError(f"{file} is not a regular file, but a folder, a pipe or a link to nothing. Move it away")


def check_configurations(configurations: Sequence[str], old_plans: Mapping[str, Any] | None) -> None:
    """Refuse names that neither nnU-Net nor the old plans have."""
    known = [*DEFAULT_CONFIGURATIONS, CASCADE, *(old_plans["configurations"] if old_plans else ())]
    choices = f"choose from {', '.join(dict.fromkeys(known))}"
    for name in configurations:
        if name not in known:
            raise UserError(f"unknown configuration {name!r}: {choices}")
    if not configurations:
        raise UserError(f"no configuration given: {choices}")


def check_folds(raw: RawDataset, used: Path) -> None:
    """Check folds next to the raw data and those in use, which must agree or nnU-Net's planner fails."""
    given = raw.folder / SPLITS_FILE
    for file in (given, used):
        if os.path.lexists(file):
            for warning in checked_folds(file, {case.name for case in raw.cases}, raw.folder).warnings:
                print(f"WARNING: {file}: {warning}")
    if given.is_file() and used.is_file():
        wanted, existing = _sorted_folds(given), _sorted_folds(used)
        if wanted != existing[: len(wanted)]:  # nnU-Net allows further folds in use
            raise UserError(f"the folds in {used} differ from those in {given}: move one of the files away")


def _sorted_folds(file: Path) -> list[Fold]:
    return [{part: sorted(fold[part]) for part in ("train", "val")} for fold in read_folds(file)]


def is_fingerprint_stale(fingerprint: Derived) -> bool:
    """Whether the data have changed since an existing fingerprint was made; prints what has."""
    (file,) = fingerprint.files
    reason = fingerprint.stale_reason() if file.is_file() else None
    if reason is not None:
        print(f"NOTE: {file} is computed again: {reason}")
    return reason is not None


def check_fingerprint(fingerprint_file: Path, raw: RawDataset) -> None:
    """Refuse a damaged or outdated fingerprint, which nnU-Net would reuse without a check."""
    if not fingerprint_file.is_file():
        return
    fix = "Compute it again with --clean"
    fingerprint = load_json_object(fingerprint_file, fix)
    for key, kind in _FINGERPRINT_TYPES.items():
        if not isinstance(fingerprint.get(key), kind):
            raise UserError(f"{fingerprint_file}: {key} is missing or of the wrong type. {fix}")
    for key in ("spacings", "shapes_after_crop"):
        for row in fingerprint[key]:
            if not isinstance(row, list) or not all(is_number(value) and value > 0 for value in row):
                raise UserError(f"{fingerprint_file}: {key} contains non-positive sizes: {row}. {fix}")
            if len(row) != 3:
                raise UserError(f"{fingerprint_file}: {key} contains {row} instead of three sizes. {fix}")
    if len(fingerprint["spacings"]) != len(fingerprint["shapes_after_crop"]):
        raise UserError(f"{fingerprint_file}: spacings and shapes_after_crop differ in length. {fix}")
    intensities = fingerprint["foreground_intensity_properties_per_channel"]
    for channel, values in intensities.items():
        if not isinstance(values, dict) or not all(is_number(values.get(key)) for key in _INTENSITIES):
            raise UserError(f"{fingerprint_file}: the intensities of channel {channel} are not numbers. {fix}")
    cases, channels = len(fingerprint["spacings"]), len(intensities)
    if (cases, channels) != (raw.num_cases, raw.num_channels):
        raise UserError(
            f"{fingerprint_file} describes {cases} cases of {channels} channels, but {raw.folder} has "
            f"{raw.num_cases} of {raw.num_channels}. {fix}"
        )


def check_integrity(raw: RawDataset, num_processes: int) -> None:
    """Run nnU-Net's own check."""
    try:
        verify_dataset_integrity(str(raw.folder), num_processes)
    except (AssertionError, RuntimeError, FileNotFoundError) as error:
        raise UserError(f"{raw.name} does not pass nnU-Net's integrity check: {error}") from error
