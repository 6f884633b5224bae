"""Whether the disks hold what a run is going to write: a lower bound, so that nobody is refused wrongly."""

from __future__ import annotations

import math
import os
import shutil
from collections import defaultdict
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.folds import NUMBER_OF_FOLDS
from factorizer_nnunet.running.dataset_files import configuration, number_of_folds, raw_dataset_json
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.states import preprocessed_state
from factorizer_nnunet.running.steps import build_steps, data_needed

_COMPRESSED = 0.2  # nnU-Net compresses data and probabilities; seldom to less than a fifth
_DATA_BYTES, _PROBABILITY_BYTES = 4, 2


def check_space(settings: RunSettings) -> None:
    """Check that what is not there yet can be written; call it once plans are there.

    Raises:
        UserError: naming each disk that is too full.
    """
    paths = RunPaths(settings.folders, settings.dataset)
    wanted: defaultdict[int, float] = defaultdict(float)
    folders: dict[int, Path] = {}
    for folder, size in (
        (paths.preprocessed, _data_bytes(settings, paths)),
        (paths.results, _result_bytes(settings, paths)),
    ):
        there = next(one for one in (folder, *folder.parents) if one.exists())
        disk = os.stat(there).st_dev
        wanted[disk] += size
        folders.setdefault(disk, there)
    problems = [
        f"{folders[disk]} has {free / 1e9:.1f} GB free, but at least {size / 1e9:.1f} GB are going to be written"
        for disk, size in wanted.items()
        if (free := shutil.disk_usage(folders[disk]).free) < size
    ]
    if problems:
        raise UserError(f"no space left: {'; '.join(problems)}. Free some, or let the variable name another disk")


def _data_bytes(settings: RunSettings, paths: RunPaths) -> float:
    """Preprocessed data, 4 bytes a voxel and channel."""
    channels = len(_channels(paths))
    missing = [pair for pair in data_needed(settings) if not preprocessed_state(paths, *pair).done]
    return sum(_voxels(paths, *pair) for pair in missing) * channels * _DATA_BYTES * _COMPRESSED


def _result_bytes(settings: RunSettings, paths: RunPaths) -> float:
    """Probabilities of the validation cases, 2 bytes a voxel and class."""
    classes = len(raw_dataset_json(paths)["labels"])
    trainings = [step for step in build_steps(settings) if step.trains is not None]
    missing = sum(not step.state().done for step in trainings) / (number_of_folds(paths) or NUMBER_OF_FOLDS)
    return missing * sum(_own_voxels(paths)) * classes * _PROBABILITY_BYTES * _COMPRESSED


def _voxels(paths: RunPaths, plans: str, name: str) -> float:
    """Voxels of all training cases as a configuration has them."""
    own, spacing = _own_voxels(paths), configuration(paths, plans, name)["spacing"]
    if len(spacing) < 3:  # slices are resampled within their plane alone, and little
        return sum(own)
    volumes = zip(own, read_complete_json(paths.fingerprint)["spacings"], strict=True)
    return sum(voxels * math.prod(there) / math.prod(spacing) for voxels, there in volumes)


def _own_voxels(paths: RunPaths) -> list[int]:
    """Voxels of each training case, cropped as nnU-Net does."""
    return [math.prod(shape) for shape in read_complete_json(paths.fingerprint)["shapes_after_crop"]]


def _channels(paths: RunPaths) -> dict:
    content = raw_dataset_json(paths)
    return content.get("channel_names", content.get("modality"))
