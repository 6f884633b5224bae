"""Checks before a training starts: plans, data set, configuration and checkpoint must belong together."""

from __future__ import annotations

import itertools
import json
import pydoc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.config_values import is_integer
from factorizer_nnunet.nnunet.checkpoint import check_executes_nothing
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson
from factorizer_nnunet.nnunet.environment import nnunet_folder
from factorizer_nnunet.nnunet.fold_checks import check_fold
from factorizer_nnunet.nnunet.integrity import is_complete
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE, ModelFolder
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import SPLITS_FILE, id_in_name
from factorizer_nnunet.nnunet.plan_values import check_values
from factorizer_nnunet.nnunet.plans import resolved_configuration
from factorizer_nnunet.nnunet.previous_stage import segmentation_files
from factorizer_nnunet.nnunet.raw_dataset import raw_folder
from factorizer_nnunet.nnunet.safe_pickle import check_pickles
from factorizer_nnunet.nnunet.trusted_classes import check_named_code
from factorizer_nnunet.planning.architecture import NETWORK_CLASS
from factorizer_nnunet.training.building import build_network, translated_unet
from factorizer_nnunet.training.data_checks import cases_in, check_data

# What a checkpoint's weights depend on; batch size and the like may change between sessions.
_DEFINING_KEYS = ("patch_size", "spacing", "architecture", "normalization_schemes")
_PLANS_KEYS = ("plans_name", "dataset_name", "configurations")
# nnU-Net copies the fingerprint into the model's folder, when it has already written there.
_FINGERPRINT_FIX = "Restore it, or compute it again: nnUNetv2_extract_fingerprint -d {} --clean"
_CONFIGURATION_KEYS = ("data_identifier", "patch_size", "batch_size", "spacing")


def check_training_inputs(
    plans: Mapping[str, Any],
    configuration: str,
    fold: int | str,
    dataset_json: Mapping[str, Any],
    trainer_name: str,
) -> None:
    """Check the arguments of a trainer, and the files that it uses, before anything is written.

    Raises:
        UserError: names the folder, file or key, and how to fix it.
    """
    preprocessed = nnunet_folder("nnUNet_preprocessed", writable=False)
    results = nnunet_folder("nnUNet_results", writable=True)
    settings = check_plans(plans, configuration, dataset_json)
    data = preprocessed / plans["dataset_name"] / settings.data_identifier
    if not data.is_dir():
        raise UserError(
            f"no preprocessed data in {data}; run: nnUNetv2_preprocess -d {id_in_name(plans['dataset_name'])} "
            f"-plans_name {plans['plans_name']} -c {configuration}"
        )
    check_pickles(sorted(data.glob("*.pkl")))  # nnU-Net's data loader unpickles them
    folder, raw = preprocessed / plans["dataset_name"], raw_folder(plans["dataset_name"])
    load_json_object(folder / FINGERPRINT_FILE, _FINGERPRINT_FIX.format(id_in_name(plans["dataset_name"])))
    for warning in check_data(folder, plans, configuration, raw):
        print(f"WARNING: {warning}")
    check_fold(fold, folder / SPLITS_FILE, cases_in(data), raw)
    if settings.previous_stage_name is not None:
        previous = ModelName(trainer_name, plans["plans_name"], settings.previous_stage_name)
        _check_previous_stage(
            ModelFolder(results / plans["dataset_name"] / previous.folder).next_stage(configuration),
            data,
            f"nnUNetv2_train {plans['dataset_name']} {settings.previous_stage_name} FOLD -tr {trainer_name} "
            f"-p {plans['plans_name']}",
        )


def check_plans(plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any]) -> ConfigurationManager:
    """Check that our trainers can train on these plans; nothing needs to be preprocessed yet.

    Returns:
        The configuration's settings.

    Raises:
        UserError: names the file or key, and how to fix it.
    """
    name = _place(plans)
    _require_keys(plans, _PLANS_KEYS, name)
    check_values(plans, configuration, name)
    check_named_code(plans, configuration, name)
    manager = PlansManager(dict(plans))
    if configuration not in manager.available_configurations:
        raise UserError(
            f"{name} has no configuration {configuration!r}; it has {sorted(manager.available_configurations)}"
        )
    _check_dataset(plans, configuration, name, dataset_json)
    settings = manager.get_configuration(configuration)
    where = f"{name}, configuration {configuration}"
    _require_keys(settings.configuration, _CONFIGURATION_KEYS, where)
    _check_sizes(settings, where)
    _check_network(settings, where)
    return settings


def check_checkpoint(checkpoint: Mapping[str, Any], plans: Mapping[str, Any], configuration: str, path: str) -> None:
    """Check that a checkpoint was trained on these plans.

    Raises:
        UserError: it was not; names the checkpoint and the first entry that differs.
    """
    arguments = checkpoint.get("init_args", {})
    if "plans" not in arguments:
        raise UserError(f"{path} is not a checkpoint of an nnU-Net trainer (no init_args)")
    trained = _defining(arguments["plans"], arguments["configuration"])
    current = _defining(plans, configuration)
    if trained != current:
        key, old, new = _first_difference(trained, current)
        raise UserError(
            f"{path} was trained with other plans: {key} was {old}, now it is {new}; restore the plans "
            "it was trained with, or start a new training without --c"
        )


def check_pretrained_weights(arguments: Sequence[str]) -> None:
    """Check the file of ``-pretrained_weights`` before nnU-Net unpickles it, which does not pass it to the trainer.

    Args:
        arguments: those of nnUNetv2_train.

    Raises:
        UserError: it asks for code.
    """
    option = "-pretrained_weights"  # every abbreviation is ambiguous, because of -p
    files = [words[1] for words in itertools.pairwise(arguments) if words[0] == option]
    files += [word.partition("=")[2] for word in arguments if word.startswith(f"{option}=")]
    for file in files:
        check_executes_nothing(Path(file), "Use a checkpoint that nnU-Net has written")


def _place(plans: Mapping[str, Any]) -> str:
    """Where plans lie, for messages; only their name if they do not lie where they say."""
    file = f"{plans.get('plans_name', 'the plans file')}.json"
    place = nnunet_folder("nnUNet_preprocessed", writable=False) / str(plans.get("dataset_name")) / file
    return str(place) if place.is_file() else file


def _first_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """The first key, as a path, whose values differ, and both values; None for a missing value."""
    key = next(key for key in {**after, **before} if after.get(key) != before.get(key))
    old, new = before.get(key), after.get(key)
    if isinstance(old, dict) and isinstance(new, dict):
        below, old, new = _first_difference(old, new)
        return f"{key}.{below}", old, new
    return key, old, new


def _require_keys(entries: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    missing = [key for key in keys if key not in entries]
    if missing:
        raise UserError(f"{where} has no {missing[0]!r}; add it, or plan the data set again")


def _check_sizes(settings: ConfigurationManager, where: str) -> None:
    """Patch and batch size must be integers, those of the patch one per axis of the spacing."""
    patch, axes = settings.patch_size, len(settings.spacing)
    if len(patch) != axes or not all(is_integer(size) and size >= 1 for size in patch):
        raise UserError(f"{where}: patch_size {list(patch)} must be {axes} integers of at least 1; correct it")
    if not is_integer(settings.batch_size) or settings.batch_size < 1:
        raise UserError(f"{where}: batch_size {settings.batch_size!r} must be an integer of at least 1; correct it")


def _defining(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    settings = PlansManager(dict(plans)).get_configuration(configuration).configuration
    # Through JSON, since lists and tuples must compare equal.
    values = json.loads(json.dumps({key: settings.get(key) for key in _DEFINING_KEYS}, default=str))
    return {"dataset_name": plans["dataset_name"], "configuration": configuration, **values}


def _check_dataset(plans: Mapping[str, Any], configuration: str, name: str, dataset_json: Mapping[str, Any]) -> None:
    preprocessed = nnunet_folder("nnUNet_preprocessed", writable=False)
    described = preprocessed / plans["dataset_name"] / DATASET_FILE
    if not described.is_file():
        raise UserError(
            f"{plans['plans_name']}.json was made for {plans['dataset_name']}, but there is no {described}; to use one "
            "data set's plans for another, run nnUNetv2_move_plans_between_datasets"
        )
    # nnU-Net passes the content of dataset.json, not the name: copies of one data set cannot be distinguished.
    dataset = DatasetJson.read(described, "Plan the data set again")
    if dataset.content != dataset_json:
        raise UserError(
            f"{plans['plans_name']}.json was made for {plans['dataset_name']}, not for the data set it is used with; "
            "to use one data set's plans for another, run nnUNetv2_move_plans_between_datasets"
        )
    num_channels = len(dataset.channel_names)
    schemes = resolved_configuration(plans, configuration, name).get("normalization_schemes")
    if schemes is not None and len(schemes) != num_channels:
        raise UserError(
            f"{name}, configuration {configuration}: normalization_schemes has {len(schemes)} entries, {described} "
            f"{num_channels} channels; plan the data set again"
        )


def _check_previous_stage(predictions: Path, data: Path, command: str) -> None:
    # nnU-Net notices only when it loads the first case that lacks one.
    cases = sorted(file.stem for file in data.glob("*.pkl"))  # nnU-Net's preprocessing writes one per case
    predicted = segmentation_files(predictions, cases)
    if missing := [case for case in cases if case not in predicted]:
        raise UserError(
            f"a cascade needs the previous stage's predictions of all {len(cases)} cases, but {predictions} lacks "
            f"{len(missing)} of them ({first_few(missing, 3)}); train every fold of it first: {command}"
        )
    if cut_off := [file.name for file in predicted.values() if not is_complete(file)]:
        raise UserError(
            f"{predictions}: {count_of(len(cut_off), 'file')} cut off ({first_few(cut_off, 3)}). Remove them and "
            f"validate their folds again: {command} --val"
        )


def _check_network(settings: ConfigurationManager, where: str) -> None:
    class_name = settings.network_arch_class_name
    found = pydoc.locate(class_name)
    ours = isinstance(found, type) and issubclass(found, Factorizer)
    if not ours and not translated_unet(settings):
        raise UserError(
            f"{where}: architecture.network_class_name {class_name!r} is neither a Factorizer nor one of nnU-Net's "
            f"U-Nets, which this trainer translates; train it with its own trainer, or use {NETWORK_CLASS!r}"
        )
    sized_for = settings.network_arch_init_kwargs.get("patch_size") if ours else None
    if sized_for is not None and list(sized_for) != list(settings.patch_size):
        raise UserError(
            f"{where}: architecture.arch_kwargs.patch_size {sized_for} is not the configuration's patch_size "
            f"{list(settings.patch_size)}; make them equal"
        )
    try:
        # Without memory for the weights, only to have the network check its settings.
        with torch.device("meta"):
            network = build_network(settings, input_channels=1, num_classes=2, deep_supervision=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{where}: architecture.arch_kwargs builds no network: {error}; correct it or plan the data set again"
        ) from None  # nnU-Net's command prints an exception with all its causes
    assert isinstance(network, Factorizer)  # as checked above, or a translated U-Net
    if network.config.ndim != len(settings.patch_size):
        raise UserError(
            f"{where}: architecture.arch_kwargs.strides have {network.config.ndim} axes, patch_size "
            f"{len(settings.patch_size)}; make them equal"
        )
    for axis, (size, total) in enumerate(zip(settings.patch_size, network.config.total_stride, strict=True)):
        if size % total:
            raise UserError(
                f"{where}: patch_size {list(settings.patch_size)} is not divisible by the strides' product {total} on "
                f"axis {axis}; change patch_size or architecture.arch_kwargs.strides"
            )
