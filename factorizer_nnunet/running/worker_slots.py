"""Where commands run side by side on this machine: one lane a GPU (or group of GPUs), or a share of the processor."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.processes import core_count
from factorizer_nnunet.nnunet.environment import EXT_TRAINER_VARIABLE, ext_trainer_value
from factorizer_nnunet.running.settings import Folders, RunSettings

MAX_SLOTS = 5  # on a processor: as many as nnU-Net has folds


@dataclass(frozen=True)
class WorkerSlot:
    """A place for one command at a time: a name to show, and what the command's environment has of its own."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)


def plan_worker_slots(device: str, gpus: Sequence[str], gpus_per_fold: int, side_by_side: int | None) -> list[WorkerSlot]:
    """The lanes of a device.

    Args:
        gpus: numbers as nvidia-smi shows them; only for ``cuda``.
        side_by_side: folds at a time on a processor; None is one a core, at most five.

    Raises:
        UserError: there are not enough GPUs for one fold.
    """
    if device == "cuda":
        groups = [gpus[i : i + gpus_per_fold] for i in range(0, len(gpus) - gpus_per_fold + 1, gpus_per_fold)]
        if not groups:
            raise UserError(f"{gpus_per_fold} GPUs for one fold, but there are only {len(gpus)}: {', '.join(gpus)}")
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # CUDA's own order may differ from nvidia-smi's
        return [WorkerSlot(f"GPU {','.join(group)}", {**order, "CUDA_VISIBLE_DEVICES": ",".join(group)}) for group in groups]
    cores = core_count()
    count = side_by_side or (1 if device == "mps" else max(1, min(MAX_SLOTS, cores)))
    threads = str(max(1, cores // count))
    return [WorkerSlot(f"{device} {number}", {"OMP_NUM_THREADS": threads}) for number in range(count)]


def visible_gpus() -> list[str]:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES leaves, by nvidia-smi's numbers; empty without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        present = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return []
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return present if allowed is None else [gpu for gpu in present if gpu in allowed.split(",")]


def command_environment(folders: Folders, lane: WorkerSlot, device: str, current: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a command; what the user has set stays, but for folders and the lane's own.

    nnU-Net takes 8 to 12 workers for each command unless told otherwise: too many for a share of a processor.
    """
    few = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "2", "OMP_WAIT_POLICY": "PASSIVE"} if device == "cpu" else {}
    trainers = {EXT_TRAINER_VARIABLE: ext_trainer_value(current.get(EXT_TRAINER_VARIABLE))}
    return {**few, **current, **folders.variables, **trainers, **lane.variables}


def slurm_slot(settings: RunSettings) -> WorkerSlot:
    """The environment of a cluster's job: SLURM has chosen its GPUs and cores."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK", "1")
    return WorkerSlot("slurm", {} if settings.device == "cuda" else {"OMP_NUM_THREADS": cores})
