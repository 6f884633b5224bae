"""Whether the disks have space for what a run will write: a lower bound, so that no run is refused wrongly."""

from __future__ import annotations

import math
import os
import shutil
from collections import defaultdict
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS, read_folds
from factorizer_nnunet.nnunet.plans import resolved_configuration
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.states import preprocessed_state
from factorizer_nnunet.running.steps import build_steps, data_needed

_COMPRESSED = 0.2  # nnU-Net compresses data and probabilities, rarely to less than a fifth
_DATA_BYTES, _PROBABILITY_BYTES = 4, 2


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
        existing = next(one for one in (folder, *folder.parents) if one.exists())
        disk = os.stat(existing).st_dev
        wanted[disk] += size
        folders.setdefault(disk, existing)
    problems = [
        f"{folders[disk]} has {free / 1e9:.1f} GB free, but the run will write at least {size / 1e9:.1f} GB"
        for disk, size in wanted.items()
        if (free := shutil.disk_usage(folders[disk]).free) < size
    ]
    if problems:
        raise UserError(
            f"no space left: {'; '.join(problems)}. Free some, or set the variable to a folder on another disk"
        )


def _data_bytes(settings: RunSettings) -> float:
    """Size of the missing preprocessed data, 4 bytes per voxel and channel."""
    paths = settings.paths
    missing = [pair for pair in data_needed(settings) if not preprocessed_state(paths, *pair).done]
    channels = len(paths.raw_dataset().channel_names)
    return sum(_voxels(paths, *pair) for pair in missing) * channels * _DATA_BYTES * _COMPRESSED


def _result_bytes(settings: RunSettings) -> float:
    """Size of the missing probabilities of validation cases, 2 bytes per voxel and class."""
    paths = settings.paths
    classes = len(paths.raw_dataset().labels)
    trainings = [step for step in build_steps(settings) if step.trains is not None]
    missing = sum(not step.look().done for step in trainings) / (len(read_folds(paths.splits)) or NUMBER_OF_FOLDS)
    return missing * sum(_own_voxels(paths)) * classes * _PROBABILITY_BYTES * _COMPRESSED


def _voxels(paths: RunPaths, plans: str, name: str) -> float:
    """Voxels of all training cases at the spacing of a configuration."""
    own = _own_voxels(paths)
    planned = resolved_configuration(read_complete_json(paths.plans(plans)) or {}, name, plans)["spacing"]
    if len(planned) < 3:  # slices are resampled only within their plane, and little
        return sum(own)
    volumes = zip(own, read_complete_json(paths.fingerprint)["spacings"], strict=True)
    return sum(voxels * math.prod(spacing) / math.prod(planned) for voxels, spacing in volumes)


def _own_voxels(paths: RunPaths) -> list[int]:
    """Voxels of each training case after nnU-Net's cropping."""
    return [math.prod(shape) for shape in read_complete_json(paths.fingerprint)["shapes_after_crop"]]
