"""What steps have to know of a data set: its cases, folds, and how plans lead to data. Imports no torch."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from factorizer_nnunet.core.json_files import load_json_object, read_complete_json
from factorizer_nnunet.running.paths import RunPaths

_MEND = "Mend it as nnU-Net's dataset_format.md describes"


def raw_dataset_json(paths: RunPaths) -> dict:
    """``dataset.json`` of the raw data.

    Raises:
        UserError: it cannot be read.
    """
    return load_json_object(paths.raw / "dataset.json", _MEND)


def training_labels(paths: RunPaths) -> dict[str, Path]:
    """The label file of every training case, by case.

    As nnU-Net's own function finds them; that one starts a pool of processes for a list of names, at every look.
    """
    content = raw_dataset_json(paths)
    if "dataset" in content:
        return {case: paths.raw / os.path.expandvars(entry["label"]) for case, entry in content["dataset"].items()}
    ending = content["file_ending"]
    return {case: paths.raw / "labelsTr" / f"{case}{ending}" for case in image_channels(paths.raw / "imagesTr", ending)}


def validation_cases(paths: RunPaths, fold: int) -> list[str] | None:
    """The cases that a fold validates on; None while no folds are made, or for a fold that they lack."""
    folds = read_complete_json(paths.splits, list) or []
    return folds[fold]["val"] if fold < len(folds) else None


def number_of_folds(paths: RunPaths) -> int | None:
    """How many folds are defined; None while none are."""
    return len(read_complete_json(paths.splits, list) or []) or None


def configuration(paths: RunPaths, plans: str, name: str) -> Mapping | None:
    """The settings of a configuration in plans, with what it inherits; None if plans or configuration are not there."""
    content = read_complete_json(paths.plans(plans)) or {}
    configurations = content.get("configurations", {})
    if name not in configurations:
        return None
    own = configurations[name]
    parent = own.get("inherits_from")
    return own if parent is None else {**(configuration(paths, plans, parent) or {}), **own}


def image_channels(images: Path, file_ending: str) -> dict[str, set[int]]:
    """The channels of every case in a folder of images ``CASE_0000ENDING``; other files are not looked at."""
    pattern = re.compile(r"(.+)_(\d{4})" + re.escape(file_ending))
    found: defaultdict[str, set[int]] = defaultdict(set)
    for path in sorted(images.iterdir()):
        if match := pattern.fullmatch(path.name):
            found[match[1]].add(int(match[2]))
    return dict(found)
