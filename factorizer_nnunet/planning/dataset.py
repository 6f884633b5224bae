"""Fingerprint, plan and preprocess one data set through nnU-Net's public planning functions.

All input is checked before anything is written; from then on nnU-Net does the work and prints its own progress.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    preprocess_dataset,
)
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.network import VARIANTS
from factorizer_nnunet.nnunet import names
from factorizer_nnunet.nnunet.environment import nnunet_folder
from factorizer_nnunet.nnunet.integrity import gzip_damage
from factorizer_nnunet.nnunet.names import PLANS, SPLITS_FILE, TRAINER
from factorizer_nnunet.nnunet.raw_dataset import RawDataset, check_raw_dataset, find_dataset, id_in_name
from factorizer_nnunet.planning.image_geometry import typical_image
from factorizer_nnunet.planning.planner import CASCADE, nnUNetPlannerFactorizer
from factorizer_nnunet.planning.planners import planner_for
from factorizer_nnunet.planning.reuse import (
    link_preprocessed,
    outdated_configurations,
    plans_in,
    preprocessed_folder,
)
from factorizer_nnunet.planning.sizes import SIZES
from factorizer_nnunet.planning.templates import (
    TEMPLATE_CONFIGURATION,
    check_fit,
    load_template,
    planner_for_template,
)

DEFAULT_VARIANT = "default"
_LARGEST_TARGET_GB = 10_000  # no GPU has a hundredth of it
_FINGERPRINT_KINDS = {
    "spacings": list,
    "shapes_after_crop": list,
    "foreground_intensity_properties_per_channel": dict,
    "median_relative_size_after_cropping": (int, float),
}
DEFAULT_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")


def plan_dataset(
    dataset: str | int,
    configurations: Sequence[str] = DEFAULT_CONFIGURATIONS,
    gpu_memory_target_gb: float | None = None,
    plans_name: str | None = None,
    size: str | None = None,
    variant: str | None = None,
    template: str | None = None,
    num_processes: int = 4,
    verify_integrity: bool = False,
    preprocess: bool = True,
    clean: bool = False,
) -> Path:
    """Plan a data set for Factorizer and, unless told otherwise, preprocess it.

    Args:
        dataset: ID or name (``DatasetXXX_Name``) of a data set in ``nnUNet_raw``.
        configurations: what to preprocess; those that the plans turn out not to have are skipped, as nnU-Net does.
            ``3d_cascade_fullres`` stands for the two configurations whose data it uses.
        gpu_memory_target_gb: memory for which patch and batch size are chosen, in GB (10⁹ bytes); ``None`` is the
            size's.
        plans_name: name of the plans file without ``.json``; ``None`` is that of ``names.plans_name``.
        size: width and depth, a key of ``sizes.SIZES``; ``None`` is ``sizes.DEFAULT_SIZE``.
        variant: published form of the network instead, a key of ``network.VARIANTS`` with widths of its own; ``None``
            and ``default`` are the default form.
        template: name or file of the template that sets voxel size, patch, batch and network instead.
        num_processes: worker processes of the fingerprint and of preprocessing.
        verify_integrity: run nnU-Net's check of images and labels first.
        preprocess: whether to preprocess after planning.
        clean: compute the fingerprint anew even if there is one.

    Returns:
        The plans file.

    Raises:
        UserError: an argument, a folder or the data set cannot be used; then nothing has been written. Or the memory
            target is too small, which needs the fingerprint; then no plans have been written.
    """
    _check_choice(size, variant)
    name = _plans_name(plans_name, size, variant, template)
    chosen = None if template is None else load_template(template)
    _check_arguments(name, gpu_memory_target_gb, num_processes)
    preprocessed = nnunet_folder("nnUNet_preprocessed", writable=True)
    raw = check_raw_dataset(dataset)
    plans_file = preprocessed / raw.name / f"{name}.json"
    old_plans = _load_own_plans(plans_file)
    _check_configurations(configurations, old_plans)
    wanted = with_data_of_their_own(configurations)
    fingerprint_file = preprocessed / raw.name / "dataset_fingerprint.json"
    if not clean:
        _check_fingerprint(fingerprint_file, raw)
    if chosen is not None:
        if TEMPLATE_CONFIGURATION not in wanted:
            raise UserError(f"a template plans {TEMPLATE_CONFIGURATION} alone, not {', '.join(wanted)}: change -c")
        check_fit(chosen, typical_image(raw, None if clean else fingerprint_file), raw.name)
    _check_splits(raw.folder / SPLITS_FILE, preprocessed / raw.name / SPLITS_FILE)
    if verify_integrity:
        _verify(raw, num_processes)

    extract_fingerprint_dataset(raw.id, num_processes=num_processes, clean=clean, verbose=False)
    planner_class = planner_for(size, _other_variant(variant)) if chosen is None else planner_for_template(chosen)
    spacing = None if chosen is None else chosen.spacing
    planner = planner_class(raw.id, gpu_memory_target_gb, plans_name=name, overwrite_target_spacing=spacing)
    others = plans_in(plans_file.parent)
    plans = planner.plan_experiment()
    stale = outdated_configurations(old_plans, plans, plans_file.parent)
    if stale:
        print(f"NOTE: {plans_file} was overwritten with different plans. {_stale_advice(stale, wanted, preprocess)}")
    if preprocess:
        if not any(configuration in plans["configurations"] for configuration in wanted):
            print(f"NOTE: nothing to preprocess: the plans have only {', '.join(plans['configurations'])}")
        to_do = [
            configuration
            for configuration in wanted
            if configuration not in plans["configurations"]  # nnU-Net says that it skips it
            or not _linked(plans, configuration, others, plans_file.parent, planner.dataset)
        ]
        preprocess_dataset(raw.id, name, to_do, num_processes=[num_processes])
    return plans_file


def _linked(plans: Mapping, name: str, others: Sequence[Mapping], folder: Path, cases: Mapping) -> bool:
    """Whether the data of a configuration were there already and are in its folder now; says so."""
    source = preprocessed_folder(plans, name, others, folder, cases)
    target = folder / PlansManager(dict(plans)).get_configuration(name).data_identifier
    if source is None:
        return False
    if source == target:
        print(f"{name}: the preprocessed data in {target} are whole and stay")
    else:
        link_preprocessed(source, target)
        print(f"{name}: preprocessed data of equal settings are linked from {source}, not written again")
    return True


def existing_plans(
    dataset: str | int,
    plans_name: str | None = None,
    size: str | None = None,
    variant: str | None = None,
    template: str | None = None,
) -> Path | None:
    """The plans file that ``plan_dataset`` would write, if it is there; arguments as there.

    Raises:
        UserError: no such data set, size or variant.
    """
    _check_choice(size, variant)
    name = _plans_name(plans_name, size, variant, template)
    _, dataset_name = find_dataset(dataset, "nnUNet_raw")
    plans_file = nnunet_folder("nnUNet_preprocessed", writable=False) / dataset_name / f"{name}.json"
    return plans_file if plans_file.is_file() else None


def with_data_of_their_own(configurations: Sequence[str]) -> list[str]:
    """What is to be preprocessed for these configurations, none twice: a cascade uses the data of two others."""
    parts = [("3d_lowres", "3d_fullres") if name == CASCADE else (name,) for name in configurations]
    return list(dict.fromkeys(name for part in parts for name in part))


def next_command(plans_file: Path, configurations: Sequence[str]) -> str | None:
    """The stock nnU-Net command that trains fold 0 of what was planned, 3d_fullres where that was asked for.

    None if the plans hold nothing of what was asked for. A cascade begins with its 3d_lowres.
    """
    planned = load_json_object(plans_file, "Remove it and plan again")["configurations"]
    wanted = ["3d_lowres" if c == CASCADE else c for c in configurations]
    ranking = [*(c for c in ("3d_fullres", "3d_lowres", "2d") if c in wanted), *wanted]
    configuration = next((c for c in ranking if c in planned), None)
    if configuration is None:
        return None
    dataset_id = id_in_name(plans_file.parent.name)
    return f"nnUNetv2_train {dataset_id} {configuration} 0 -tr {TRAINER} -p {plans_file.stem}"


def _stale_advice(stale: Sequence[str], wanted: Sequence[str], preprocess: bool) -> str:
    left = [name for name in stale if not (preprocess and name in wanted)]
    if not left:
        return f"The preprocessed data of {', '.join(stale)} are made anew"
    return f"The preprocessed data of {', '.join(left)} come from the old plans; renew them with -c {' '.join(left)}"


def _other_variant(variant: str | None) -> str | None:
    """The variant, unless it is the default one."""
    return None if variant == DEFAULT_VARIANT else variant


def _plans_name(plans_name: str | None, size: str | None, variant: str | None, template: str | None) -> str:
    if plans_name is not None:
        return plans_name
    if template is not None:
        return names.template_plans_name(Path(template).stem)
    return names.plans_name(size, _other_variant(variant))


def _check_choice(size: str | None, variant: str | None) -> None:
    if size is not None and size not in SIZES:
        raise UserError(f"unknown size {size!r}: choose from {', '.join(SIZES)}")
    if variant is not None and variant not in VARIANTS:
        raise UserError(f"unknown variant {variant!r}: choose from {', '.join(VARIANTS)}")
    if size is not None and _other_variant(variant) is not None:
        raise UserError(
            f"--size {size} and --variant {variant} exclude each other: a published form has widths and depth of "
            "its own; give one of them, and --gpu-memory-target if you like"
        )


def _check_arguments(plans_name: str, gpu_memory_target_gb: float | None, num_processes: int) -> None:
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
        raise UserError(f"{plans_name} is a name that nnU-Net's own planners use: choose another, such as {PLANS}_16GB")


def _load_own_plans(plans_file: Path) -> dict | None:
    """The plans that would be overwritten, if there are any; refuses those of another planner."""
    if not plans_file.is_file():
        return None
    mend = f"Remove {plans_file} or choose another name with --plans-name"
    plans = load_json_object(plans_file, mend)
    planner = plans.get("experiment_planner_used")
    if not str(planner).startswith(nnUNetPlannerFactorizer.__name__):
        raise UserError(
            f"{plans_file} was made by {planner or 'another planner'} and is not overwritten: "
            "choose another name with --plans-name"
        )
    if not isinstance(plans.get("configurations"), dict):
        raise UserError(f"{plans_file} has no configurations. {mend}")
    return plans


def _check_configurations(configurations: Sequence[str], old_plans: Mapping | None) -> None:
    """Refuse names that are neither nnU-Net's nor in the user's own plans."""
    known = [*DEFAULT_CONFIGURATIONS, CASCADE, *(old_plans["configurations"] if old_plans else ())]
    choices = f"choose from {', '.join(dict.fromkeys(known))}"
    for name in configurations:
        if name not in known:
            raise UserError(f"unknown configuration {name!r}: {choices}")
    if not configurations:
        raise UserError(f"no configuration given: {choices}")


def _check_splits(given: Path, used: Path) -> None:
    """Refuse folds beside the raw data that differ from those in use; nnU-Net's planner would fail without a reason."""
    if not (given.is_file() and used.is_file()):
        return
    folds = [_load_folds(file) for file in (given, used)]
    if folds[0] != folds[1][: len(folds[0])]:  # nnU-Net allows further folds in use
        raise UserError(f"the folds in {used} are not those given in {given}: remove one of the files")


def _load_folds(file: Path) -> list:
    try:
        return [{part: sorted(fold[part]) for part in ("train", "val")} for fold in json.loads(file.read_text())]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} does not hold folds as nnU-Net writes them. Remove it") from error


def _check_fingerprint(fingerprint_file: Path, raw: RawDataset) -> None:
    """Refuse a fingerprint left from another state of the data, which nnU-Net would reuse unseen."""
    if not fingerprint_file.is_file():
        return
    mend = "Compute it anew with --clean"
    fingerprint = load_json_object(fingerprint_file, mend)
    for key, kind in _FINGERPRINT_KINDS.items():
        if not isinstance(fingerprint.get(key), kind):
            raise UserError(f"{fingerprint_file}: {key} is missing or of another kind than nnU-Net writes. {mend}")
    for key in ("spacings", "shapes_after_crop"):
        for row in fingerprint[key]:
            if not isinstance(row, list) or not all(_is_size(value) for value in row):
                raise UserError(f"{fingerprint_file}: {key} holds {row}, which are no sizes above 0. {mend}")
    cases = len(fingerprint["spacings"])
    channels = len(fingerprint["foreground_intensity_properties_per_channel"])
    if (cases, channels) != (raw.num_cases, raw.num_channels):
        raise UserError(
            f"{fingerprint_file} describes {cases} cases of {channels} channels, but {raw.folder} has "
            f"{raw.num_cases} of {raw.num_channels}. {mend}"
        )


def _verify(raw: RawDataset, num_processes: int) -> None:
    """nnU-Net's check, and before it that compressed files are whole: its reader fills what is cut off with zeros."""
    files = sorted(file for folder in ("imagesTr", "labelsTr") for file in (raw.folder / folder).glob("*.gz"))
    with ThreadPoolExecutor(num_processes) as pool:
        for file, problem in zip(files, pool.map(gzip_damage, files), strict=True):
            if problem is not None:
                raise UserError(f"{file} is truncated or damaged ({problem}). Replace it")
    try:
        verify_dataset_integrity(str(raw.folder), num_processes)
    except (AssertionError, RuntimeError, FileNotFoundError) as error:
        raise UserError(f"{raw.name} does not pass nnU-Net's integrity check: {error}") from error


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
