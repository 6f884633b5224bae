"""What steps need to know of a data set: its cases, its folds, the settings of its plans. Imports no torch."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.json_files import load_json_object, read_complete_json
from factorizer_nnunet.running.paths import RunPaths

NUMBER_OF_FOLDS = 5  # made by nnU-Net
_FIX = "Fix it as nnU-Net's dataset_format.md describes"


def raw_dataset_json(paths: RunPaths) -> dict[str, Any]:
    """``dataset.json`` of the raw data.

    Raises:
        UserError: it cannot be read.
    """
    return load_json_object(paths.raw / "dataset.json", _FIX)


def num_channels(paths: RunPaths) -> int:
    """The number of channels of an image; nnU-Net reads two spellings of the key."""
    content = raw_dataset_json(paths)
    return len(content["channel_names"] if "channel_names" in content else content["modality"])


def training_labels(paths: RunPaths) -> dict[str, Path]:
    """The label file of every training case, by case.

    Finds the same files as nnU-Net's own function, which starts a pool of processes at every call.
    """
    content = raw_dataset_json(paths)
    if "dataset" in content:
        return {case: paths.raw / os.path.expandvars(entry["label"]) for case, entry in content["dataset"].items()}
    ending = content["file_ending"]
    return {case: paths.raw / "labelsTr" / f"{case}{ending}" for case in image_channels(paths.raw / "imagesTr", ending)}


def validation_cases(paths: RunPaths, fold: int) -> list[str]:
    """The cases on which a fold is validated; none if the fold is not defined yet."""
    folds = read_complete_json(paths.splits, list) or []
    return folds[fold]["val"] if fold < len(folds) else []


def number_of_folds(paths: RunPaths) -> int | None:
    """The number of defined folds; None before any are."""
    return len(read_complete_json(paths.splits, list) or []) or None


def configuration(paths: RunPaths, plans: str, name: str) -> Mapping[str, Any] | None:
    """The settings of a configuration in plans, with those it inherits; None without such plans or configuration."""
    content = read_complete_json(paths.plans(plans)) or {}
    configurations = content.get("configurations", {})
    if name not in configurations:
        return None
    own = configurations[name]
    parent = own.get("inherits_from")
    return own if parent is None else {**(configuration(paths, plans, parent) or {}), **own}


def image_channels(images: Path, file_ending: str) -> dict[str, set[int]]:
    """The channels of every case in a folder of images ``CASE_0000ENDING``; other files are ignored."""
    pattern = re.compile(r"(.+)_(\d{4})" + re.escape(file_ending))
    found: defaultdict[str, set[int]] = defaultdict(set)
    for path in sorted(images.iterdir()):
        if match := pattern.fullmatch(path.name):
            found[match[1]].add(int(match[2]))
    return dict(found)
