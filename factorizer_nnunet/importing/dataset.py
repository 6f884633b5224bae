"""The data set that weights are imported for: its plans, and its channels and outputs as nnU-Net counts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.environment import nnunet_folder
from factorizer_nnunet.nnunet.names import PLANS
from factorizer_nnunet.nnunet.raw_dataset import find_dataset


@dataclass(frozen=True)
class PlannedDataset:
    """A data set in ``nnUNet_preprocessed`` that has plans.

    Attributes:
        folder: in ``nnUNet_preprocessed``; its name is the data set's.
        description: ``dataset.json``.
    """

    id: int
    folder: Path
    description: dict[str, Any]
    plans_file: Path
    plans: dict[str, Any]


@dataclass(frozen=True)
class Heads:
    """What goes into and comes out of a network, by name, in nnU-Net's order.

    Attributes:
        regions: whether the outputs may overlap, each with a sigmoid; else they are labels under one softmax.
    """

    channels: tuple[str, ...]
    outputs: tuple[str, ...]
    regions: bool


def planned_dataset(dataset: str | int, plans_name: str) -> PlannedDataset:
    """Find a data set and read its plans.

    Raises:
        UserError: the folder, the data set or its plans cannot be used.
    """
    dataset_id, name = find_dataset(dataset, "nnUNet_preprocessed")
    folder = nnunet_folder("nnUNet_preprocessed", writable=True) / name
    plans_file = folder / f"{plans_name}.json"
    named = "" if plans_name == PLANS else f" --plans-name {plans_name}"
    mend = f"Make them: factorizer-nnunet plan -d {dataset_id} --no-preprocess{named}"
    if not plans_file.is_file():
        raise UserError(f"{name} has no plans {plans_name} ({plans_file} does not exist). {mend}")
    plans = load_json_object(plans_file, mend)
    _check_plans(plans_file, plans, mend)
    if plans["dataset_name"] != name:
        raise UserError(f"{plans_file} was made for {plans['dataset_name']}, not for {name}. {mend}")
    description = load_json_object(folder / "dataset.json", "Plan the data set again")
    return PlannedDataset(dataset_id, folder, description, plans_file, plans)


def _check_plans(plans_file: Path, plans: Mapping[str, Any], mend: str) -> None:
    forms = {
        "dataset_name": ("a name", lambda v: isinstance(v, str)),
        "configurations": ("an object", lambda v: isinstance(v, dict)),
        "transpose_forward": ("0, 1 and 2 in some order", lambda v: isinstance(v, list) and sorted(v) == [0, 1, 2]),
    }
    for key, (valid, fits) in forms.items():
        if not fits(plans.get(key)):
            raise UserError(f"{plans_file}: {key} must be {valid}, not {plans.get(key)!r}. {mend}")


def heads(plans: Mapping[str, Any], configuration: str, description: Mapping[str, Any]) -> Heads:
    """Channels and outputs that nnU-Net gives a network of this configuration.

    Raises:
        ValueError: nnU-Net cannot read the description.
    """
    manager = PlansManager(dict(plans))
    try:
        labels = manager.get_label_manager(dict(description))
        num_channels = determine_num_input_channels(manager, configuration, dict(description))
        named = description.get("channel_names", description.get("modality"))
        channels = tuple(str(named[key]) for key in sorted(named, key=int))
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"nnU-Net cannot read its labels and channels: {error}") from error
    if len(channels) != num_channels:
        raise ValueError(f"it names {len(channels)} channels, but nnU-Net gives the network {num_channels}")
    names = [name for name in description["labels"] if name != "ignore"]
    if labels.has_regions:
        outputs = [name for name in names if name != "background"]
    else:
        value_of = {name: _value(description["labels"][name]) for name in names}
        outputs = sorted(names, key=value_of.__getitem__)
    if len(outputs) != labels.num_segmentation_heads:
        raise ValueError(
            f"it names {len(outputs)} outputs, but nnU-Net gives the network {labels.num_segmentation_heads}"
        )
    return Heads(channels, tuple(outputs), labels.has_regions)


def _value(label: int | list[int]) -> int:
    return int(label[0]) if isinstance(label, list) else int(label)
