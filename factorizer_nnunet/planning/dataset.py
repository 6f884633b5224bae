"""Fingerprint, plan and preprocess one data set through nnU-Net's public planning functions.

All input is checked before anything is written (``checks``); after that, nnU-Net does the work and prints its progress.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset, preprocess_dataset
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Source, Stamp, stamp_of
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.dataset_check.raw import RawDataset, check_raw_dataset, check_voxels, report_warnings
from factorizer_nnunet.nnunet import names, provenance
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE
from factorizer_nnunet.nnunet.environment import augmentation_setting, nnunet_folder
from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS
from factorizer_nnunet.nnunet.label_copies import outdated_label_copies
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, FINGERPRINT_FILE
from factorizer_nnunet.nnunet.names import id_in_name
from factorizer_nnunet.nnunet.raw_dataset import find_dataset
from factorizer_nnunet.planning import checks
from factorizer_nnunet.planning.failures import failures_reported, try_fingerprint, try_preprocessing
from factorizer_nnunet.planning.fingerprint import FingerprintExtractor
from factorizer_nnunet.planning.image_geometry import typical_image
from factorizer_nnunet.planning.nnunet_output import without_settings
from factorizer_nnunet.planning.planner import (
    CASCADE,
    DEFAULT_CONFIGURATIONS,
    nnUNetPlannerFactorizer,
    planner_for,
)
from factorizer_nnunet.planning.reuse import link_preprocessed, outdated_configurations, plans_in, preprocessed_folder
from factorizer_nnunet.planning.space import check_space
from factorizer_nnunet.planning.templates import (
    TEMPLATE_CONFIGURATION,
    Template,
    check_fit,
    load_template,
    planner_for_template,
)


# Longer than 60 lines with its docstring: one check after the other, then one call of nnU-Net after the other.
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
    check_data: bool = True,
    planner_class: type[nnUNetPlannerFactorizer] | None = None,
) -> Path:
    """Plan a data set for Factorizer and, by default, preprocess it.

    Args:
        dataset: ID or name (``DatasetXXX_Name``) of a data set in ``nnUNet_raw``.
        configurations: what to preprocess; configurations that the plans do not have are skipped, as in nnU-Net.
            ``3d_cascade_fullres`` stands for the two configurations whose data it uses.
        gpu_memory_target_gb: GPU memory in GB (10⁹ bytes) for which patch and batch size are chosen; None is that of
            ``size``.
        plans_name: name of the plans file without ``.json``; None is that of ``names.plans_name``.
        size: width and depth, a key of ``sizes.SIZES``; None is ``sizes.DEFAULT_SIZE``.
        variant: a key of ``network.VARIANTS``. Published variants have their own widths and exclude ``size``. None is
            ``default``.
        template: name or file of a template, which sets voxel size, patch, batch and network instead.
        num_processes: worker processes for the fingerprint and for preprocessing.
        verify_integrity: run nnU-Net's check of images and labels first.
        preprocess: whether to preprocess after planning.
        clean: compute the fingerprint again even if it exists and its data have not changed.
        check_data: look at every voxel first; files that have not changed since are not read again.
        planner_class: plans ``configurations``, whatever they are called, instead of the planner of ``size``,
            ``variant`` or ``template``.

    Returns:
        The plans file.

    Raises:
        UserError: an argument, a folder or the data set is not usable; nothing has been written. Or the memory target
            is too small, which only the fingerprint shows; no plans have been written.
    """
    checks.check_size_and_variant(size, variant)
    name = _default_plans_name(size, variant, template) if plans_name is None else plans_name
    chosen = None if template is None else load_template(template)
    checks.check_arguments(name, gpu_memory_target_gb, num_processes)
    augmentation_setting()  # the planner's, which a wrong value would end after the fingerprint
    preprocessed = nnunet_folder("nnUNet_preprocessed", writable=True)
    raw = check_raw_dataset(dataset)
    folder = preprocessed / raw.name
    plans_file = folder / f"{name}.json"
    checks.check_own_files((plans_file, folder / FINGERPRINT_FILE, folder / DATASET_FILE))
    old_plans = checks.load_own_plans(plans_file)
    if planner_class is None:
        checks.check_configurations(configurations, old_plans)
    wanted = configurations_with_own_data(configurations)
    sources = provenance.raw_sources(raw.folder, raw.description, raw.cases)
    clean = clean or checks.is_fingerprint_stale(provenance.fingerprint(folder, sources))
    _check_existing(raw, folder, chosen, wanted, clean)
    stamps = _stamps(raw, folder, sources, num_processes, check_data)
    if verify_integrity:
        checks.check_integrity(raw, num_processes)

    with failures_reported("the fingerprint", folder, raw.cases, try_fingerprint(raw)), without_settings():
        extract_fingerprint_dataset(
            raw.id,
            FingerprintExtractor,
            num_processes=num_processes,
            clean=clean,
            verbose=False,
            show_progress_bar=sys.stderr.isatty(),
        )
    provenance.fingerprint(folder, sources).write_record(stamps)
    if planner_class is None:
        planner_class = planner_for(size, _unless_default(variant)) if chosen is None else planner_for_template(chosen)
    spacing = None if chosen is None else chosen.spacing
    planner = planner_class(raw.id, gpu_memory_target_gb, plans_name=name, overwrite_target_spacing=spacing)
    other_plans = plans_in(folder)
    with without_settings():
        plans = planner.plan_experiment()
    provenance.record_plans(plans_file)
    outdated = outdated_configurations(old_plans, plans, folder)
    if outdated:
        advice = _advice_on_outdated(outdated, wanted if preprocess else [])
        print(f"NOTE: {plans_file} was overwritten with different plans. {advice}")
    if preprocess:
        reused = partial(_reuse, plans, other_plans=other_plans, folder=folder, cases=planner.dataset, sources=sources)
        _preprocess(raw, plans_file, plans, wanted, reused, num_processes, stamps)
        for configuration in set(wanted) & set(plans["configurations"]):
            provenance.preprocessed_data(folder, plans, configuration, planner.dataset, sources).write_record(stamps)
    return plans_file


def _check_existing(
    raw: RawDataset, folder: Path, template: Template | None, wanted: Sequence[str], clean: bool
) -> None:
    """Check what planning uses of earlier work, and whether a template fits the data."""
    fingerprint_file = folder / FINGERPRINT_FILE
    if not clean:
        checks.check_fingerprint(fingerprint_file, raw)
    if template is not None:
        if TEMPLATE_CONFIGURATION not in wanted:
            raise UserError(f"a template plans only {TEMPLATE_CONFIGURATION}, not {', '.join(wanted)}: change -c")
        check_fit(template, typical_image(raw, None if clean else fingerprint_file), raw.name)
    checks.check_folds(raw, folder / names.SPLITS_FILE)


def _stamps(
    raw: RawDataset, folder: Path, sources: Mapping[str, Source], num_processes: int, check_data: bool
) -> dict[Path, Stamp]:
    """The stamp of each file before anything is made of it; by default, every voxel is checked and warnings printed."""
    if not check_data:
        return {source: stamp_of(source) for source in sources.values() if isinstance(source, Path)}
    checked = check_voxels(raw, folder, num_processes)
    report_warnings(raw, checked)
    return {file: known.stamp for file, known in checked.files.items()}


def _preprocess(
    raw: RawDataset,
    plans_file: Path,
    plans: Mapping[str, Any],
    wanted: Sequence[str],
    reused: Callable[[str], bool],
    num_processes: int,
    stamps: Mapping[Path, Stamp],
) -> None:
    """Preprocess the configurations whose data cannot be reused."""
    planned = [configuration for configuration in wanted if configuration in plans["configurations"]]
    if not planned:
        print(f"NOTE: nothing to preprocess: the plans have only {', '.join(plans['configurations'])}")
    # nnU-Net reports those that it skips.
    missing = [configuration for configuration in wanted if configuration not in planned or not reused(configuration)]
    check_space(plans_file.parent, plans, [name for name in missing if name in planned], raw.num_channels)
    for copy in outdated_label_copies(raw.cases, plans_file.parent, raw.description.file_ending, stamps):
        copy.unlink()  # nnU-Net copies the label again
    reported = failures_reported("preprocessing", plans_file.parent, raw.cases, try_preprocessing(raw, plans, planned))
    with reported, without_settings():
        bar = sys.stderr.isatty()  # log files get none
        preprocess_dataset(raw.id, plans_file.stem, missing, num_processes=[num_processes], show_progress_bar=bar)


def _reuse(
    plans: Mapping[str, Any],
    configuration: str,
    *,
    other_plans: Sequence[Mapping[str, Any]],
    folder: Path,
    cases: Mapping[str, Mapping[str, Any]],
    sources: Mapping[str, Source],
) -> bool:
    """Use existing preprocessed data for a configuration, if there are any; whether that was possible."""
    source = preprocessed_folder(plans, configuration, other_plans, folder, cases, sources)
    if source is None:
        return False
    target = folder / PlansManager(dict(plans)).get_configuration(configuration).data_identifier
    if source == target:
        print(f"{configuration}: the preprocessed data in {target} are complete and kept")
    else:
        link_preprocessed(source, target)
        print(f"{configuration}: preprocessed data with equal settings are linked from {source}")
    return True


def existing_plans(
    dataset: str | int,
    plans_name: str | None = None,
    size: str | None = None,
    variant: str | None = None,
    template: str | None = None,
) -> Path | None:
    """The plans file that ``plan_dataset`` would write for the same arguments, or None if it does not exist.

    Raises:
        UserError: unknown data set, size or variant.
    """
    checks.check_size_and_variant(size, variant)
    name = _default_plans_name(size, variant, template) if plans_name is None else plans_name
    _, dataset_name = find_dataset(dataset, "nnUNet_raw")
    plans_file = nnunet_folder("nnUNet_preprocessed", writable=False) / dataset_name / f"{name}.json"
    return plans_file if plans_file.is_file() else None


def configurations_with_own_data(configurations: Sequence[str]) -> list[str]:
    """The configurations to preprocess, without duplicates; a cascade uses the data of two others."""
    parts = [("3d_lowres", "3d_fullres") if name == CASCADE else (name,) for name in configurations]
    return list(dict.fromkeys(name for part in parts for name in part))


def next_command(plans_file: Path, configurations: Sequence[str]) -> str | None:
    """The stock nnU-Net command that trains fold 0 of one of ``configurations``, 3d_fullres if it is among them.

    None if the plans have none of them. A cascade starts with its 3d_lowres; too few cases for folds train fold all.
    """
    planned = load_json_object(plans_file, "Remove it and plan again")["configurations"]
    wanted = ["3d_lowres" if name == CASCADE else name for name in configurations]
    ranking = [*(name for name in ("3d_fullres", "3d_lowres", "2d") if name in wanted), *wanted]
    configuration = next((name for name in ranking if name in planned), None)
    if configuration is None:
        return None
    dataset_id = id_in_name(plans_file.parent.name)
    fold = "0" if _has_folds(plans_file.parent) else ALL_CASES
    return f"nnUNetv2_train {dataset_id} {configuration} {fold} -tr {names.TRAINER} -p {plans_file.stem}"


def _has_folds(folder: Path) -> bool:
    """Whether there is a file of folds, or nnU-Net can make them."""
    fingerprint_file = folder / FINGERPRINT_FILE
    if (folder / names.SPLITS_FILE).exists() or not fingerprint_file.is_file():
        return True
    return len(load_json_object(fingerprint_file, "Plan again")["spacings"]) >= NUMBER_OF_FOLDS


def _advice_on_outdated(outdated: Sequence[str], preprocessed_next: Sequence[str]) -> str:
    left = [name for name in outdated if name not in preprocessed_next]
    if not left:
        return f"The preprocessed data of {', '.join(outdated)} are made again"
    return f"The preprocessed data of {', '.join(left)} are from the old plans; renew them with -c {' '.join(left)}"


def _default_plans_name(size: str | None, variant: str | None, template: str | None) -> str:
    if template is not None:
        return names.template_plans_name(Path(template).stem)
    return names.plans_name(size, _unless_default(variant))


def _unless_default(variant: str | None) -> str | None:
    return None if variant == "default" else variant
