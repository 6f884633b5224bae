"""Whether the disks have space for what a run will write: a lower bound, so that no run is refused wrongly."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from pathlib import Path

from factorizer_nnunet.core.disk import existing_parent, free_space
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS, read_folds
from factorizer_nnunet.planning.space import COMPRESSED, preprocessed_bytes
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.states import preprocessed_state
from factorizer_nnunet.running.steps import build_steps, data_needed

_PROBABILITY_BYTES = 2


def check_space(settings: RunSettings) -> None:
    """Check that there is space for what is still missing; call it when plans exist.

    Raises:
        UserError: a disk has too little space; all of them are named.
    """
    wanted: defaultdict[int, float] = defaultdict(float)
    folders: dict[int, Path] = {}
    for folder, size in (
        (settings.paths.preprocessed, _data_bytes(settings)),
        (settings.paths.results, _result_bytes(settings)),
    ):
        existing = existing_parent(folder)
        disk = os.stat(existing).st_dev
        wanted[disk] += size
        folders.setdefault(disk, existing)
    problems = [
        f"{folders[disk]} has {free / 1e9:.1f} GB free, but the run will write at least {size / 1e9:.1f} GB"
        for disk, size in wanted.items()
        if (free := free_space(folders[disk])) < size
    ]
    if problems:
        raise UserError(
            f"no space left: {'; '.join(problems)}. Free some, or set the variable to a folder on another disk"
        )


def _data_bytes(settings: RunSettings) -> float:
    """Size of the missing preprocessed data."""
    paths = settings.paths
    missing = [pair for pair in data_needed(settings) if not preprocessed_state(paths, *pair).done]
    fingerprint, channels = read_complete_json(paths.fingerprint), len(paths.raw_dataset().channel_names)
    return sum(
        preprocessed_bytes(fingerprint, read_complete_json(paths.plans(plans)) or {}, name, channels)
        for plans, name in missing
    )


def _result_bytes(settings: RunSettings) -> float:
    """Size of the missing probabilities of validation cases, 2 bytes per voxel and class."""
    paths = settings.paths
    classes = len(paths.raw_dataset().labels)
    trainings = [step for step in build_steps(settings) if step.trains is not None]
    missing = sum(not step.look().done for step in trainings) / (len(read_folds(paths.splits)) or NUMBER_OF_FOLDS)
    voxels = sum(math.prod(shape) for shape in read_complete_json(paths.fingerprint)["shapes_after_crop"])
    return missing * voxels * classes * _PROBABILITY_BYTES * COMPRESSED
