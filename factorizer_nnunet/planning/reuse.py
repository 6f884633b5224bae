"""Link existing preprocessed data instead of writing the same data again.

The files that preprocessing writes depend on a few settings of the plans (``preprocessing_settings``). If other plans
of the data set have the same settings and a complete folder, its files are hard-linked into our folder. No plans then
depend on the folder of others: preprocessing again, which first removes the folder, leaves the other one unchanged.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.core.atomic_files import atomic_folder
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Source
from factorizer_nnunet.core.json_files import json_or_none
from factorizer_nnunet.core.set_aside import OUTDATED, set_aside
from factorizer_nnunet.nnunet.integrity import is_preprocessed
from factorizer_nnunet.nnunet.provenance import Derived, preprocessed_data, preprocessing_settings
from factorizer_nnunet.nnunet.safe_pickle import read_pickle


def preprocessed_folder(
    plans: Mapping[str, Any],
    name: str,
    others: Iterable[Mapping[str, Any]],
    dataset_folder: Path,
    cases: Mapping[str, Mapping[str, Any]],
    sources: Mapping[str, Source],
) -> Path | None:
    """A folder with the data of a configuration, made for other plans or earlier for the same plans, or None.

    Args:
        plans: new plans.
        name: name of a configuration with its own data.
        others: all plans that the data set had before the new ones were written (``plans_in``).
        dataset_folder: the data set's folder in ``nnUNet_preprocessed``.
        cases: raw files of each training case, in nnU-Net's form.
        sources: what preprocessed data are made from (``provenance.raw_sources``).
    """
    wanted = preprocessing_settings(plans, name)
    transpose = plans["transpose_forward"]
    for folder, other, configuration in _folders_with(wanted, others):
        found = dataset_folder / folder
        data = preprocessed_data(dataset_folder, other, configuration, cases, sources)
        if _is_up_to_date(found, cases, data) and _has_spacing(found, min(cases), wanted["spacing"], transpose):
            return found
    return None


def link_preprocessed(source: Path, target: Path) -> None:
    """Put a folder with the files of ``source`` in the place of ``target``, which is set aside if it exists."""
    with atomic_folder(target) as draft:
        shutil.copytree(source, draft, copy_function=_link_or_copy, dirs_exist_ok=True)
        if target.exists():
            set_aside(target, OUTDATED)


def _link_or_copy(source: str, target: str) -> None:
    """Hard-link a file, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def outdated_configurations(
    old_plans: Mapping[str, Any] | None, new_plans: Mapping[str, Any], dataset_folder: Path
) -> list[str]:
    """Configurations of ``old_plans`` with preprocessed data that differ from what the new plans would give.

    Args:
        old_plans: the previous plans, or None.
        new_plans: the present plans.
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


def plans_in(dataset_folder: Path) -> list[dict[str, Any]]:
    """All readable plans of a data set in ``nnUNet_preprocessed``."""
    found = []
    for file in filter(Path.is_file, sorted(dataset_folder.glob("*.json"))):
        content = json_or_none(file)  # others' files may be damaged
        if isinstance(content, dict) and isinstance(content.get("configurations"), dict):
            found.append(content)
    return found


def _folders_with(
    wanted: Mapping[str, Any], others: Iterable[Mapping[str, Any]]
) -> Iterable[tuple[str, Mapping[str, Any], str]]:
    """Folders whose plans give the same data, except for those that other plans use with other settings.

    With each folder, the plans and the configuration that it was made for.
    """
    same: dict[str, bool] = {}
    users: dict[str, tuple[Mapping[str, Any], str]] = {}
    for plans in others:
        for name in plans["configurations"]:
            try:
                folder = PlansManager(dict(plans)).get_configuration(name).configuration["data_identifier"]
                equal = preprocessing_settings(plans, name) == wanted
            except (AttributeError, KeyError, RuntimeError, TypeError, UserError):
                continue  # nnU-Net cannot read this configuration either
            same[folder] = same.get(folder, True) and equal
            users.setdefault(folder, (plans, name))
    return [(folder, *users[folder]) for folder, equal in same.items() if equal]


def _is_up_to_date(folder: Path, cases: Mapping[str, Mapping[str, Any]], data: Derived) -> bool:
    """Whether a folder has exactly these cases, complete and made from the sources as they are now.

    What dataset.json declares is among the sources: regions and ignore label decide which label voxels are sampled.
    """
    if {file.stem for file in folder.glob("*.pkl")} != set(cases):
        return False
    return all(is_preprocessed(folder, case) for case in cases) and data.stale_reason() is None


def _has_spacing(folder: Path, case: str, spacing: Sequence[float], transpose: Sequence[int]) -> bool:
    """Whether a case can be read and has the size that resampling to ``spacing`` gives: plans may have been edited."""
    properties = read_pickle(folder / f"{case}.pkl")
    original = [properties["spacing"][axis] for axis in transpose]
    target = [*original[: len(original) - len(spacing)], *spacing]  # 2D configurations keep the slice distance
    expected = compute_new_shape(properties["shape_after_cropping_and_before_resampling"], original, target)
    try:
        data = nnUNetDatasetBlosc2(str(folder), [case]).load_case(case)[0]
    except Exception:  # whatever blosc2 raises on random bytes
        return False
    return tuple(data.shape[1:]) == tuple(int(v) for v in expected)
