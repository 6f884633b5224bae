"""The data set that weights are imported for, with its plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson
from factorizer_nnunet.nnunet.environment import nnunet_folder
from factorizer_nnunet.nnunet.names import PLANS
from factorizer_nnunet.nnunet.raw_dataset import find_dataset


@dataclass(frozen=True)
class PlannedDataset:
    """A data set in ``nnUNet_preprocessed`` with plans.

    Attributes:
        folder: its folder in ``nnUNet_preprocessed``, named like the data set.
        description: ``dataset.json``.
    """

    id: int
    folder: Path
    description: DatasetJson
    plans_file: Path
    plans: dict[str, Any]


def planned_dataset(dataset: str | int, plans_name: str) -> PlannedDataset:
    """Find a data set and read its plans.

    Raises:
        UserError: the folder, the data set or its plans are not usable.
    """
    dataset_id, name = find_dataset(dataset, "nnUNet_preprocessed")
    folder = nnunet_folder("nnUNet_preprocessed", writable=True) / name
    plans_file = folder / f"{plans_name}.json"
    named = "" if plans_name == PLANS else f" --plans-name {plans_name}"
    fix = f"Make them: factorizer-nnunet plan -d {dataset_id} --no-preprocess{named}"
    if not plans_file.is_file():
        raise UserError(f"{name} has no plans {plans_name} ({plans_file} does not exist). {fix}")
    plans = load_json_object(plans_file, fix)
    _check_plans(plans_file, plans, fix)
    if plans["dataset_name"] != name:
        raise UserError(f"{plans_file} was made for {plans['dataset_name']}, not for {name}. {fix}")
    description = DatasetJson.read(folder / DATASET_FILE, "Plan the data set again")
    return PlannedDataset(dataset_id, folder, description, plans_file, plans)


def _check_plans(plans_file: Path, plans: Mapping[str, Any], fix: str) -> None:
    forms = {
        "dataset_name": ("a name", lambda v: isinstance(v, str)),
        "configurations": ("an object", lambda v: isinstance(v, dict)),
        "transpose_forward": ("0, 1 and 2 in some order", lambda v: isinstance(v, list) and sorted(v) == [0, 1, 2]),
    }
    for key, (expected, is_valid) in forms.items():
        if not is_valid(plans.get(key)):
            raise UserError(f"{plans_file}: {key} must be {expected}, not {plans.get(key)!r}. {fix}")
