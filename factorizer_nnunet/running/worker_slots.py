"""Where commands run at the same time on this machine: a slot per GPU (or group of GPUs), or a share of the cores."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.processes import core_count
from factorizer_nnunet.nnunet.environment import EXT_TRAINER_VARIABLE, ext_trainer_value
from factorizer_nnunet.running.paths import Folders
from factorizer_nnunet.running.settings import RunSettings

MAX_SLOTS = 5  # on the CPU: as many as nnU-Net has folds


@dataclass(frozen=True)
class WorkerSlot:
    """A place for one command at a time: its name, and the environment variables that it adds to the command's."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)


def plan_worker_slots(
    device: str, gpus: Sequence[str], gpus_per_fold: int, folds_at_a_time: int | None
) -> list[WorkerSlot]:
    """The slots of a device.

    Args:
        gpus: numbers as nvidia-smi shows them; only for ``cuda``.
        folds_at_a_time: on the CPU; None is one per core, at most five.

    Raises:
        UserError: there are not enough GPUs for one fold.
    """
    if device == "cuda":
        groups = [gpus[i : i + gpus_per_fold] for i in range(0, len(gpus) - gpus_per_fold + 1, gpus_per_fold)]
        if not groups:
            raise UserError(f"{gpus_per_fold} GPUs for one fold, but there are only {len(gpus)}: {', '.join(gpus)}")
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # CUDA's own order may differ from nvidia-smi's
        return [
            WorkerSlot(f"GPU {','.join(group)}", {**order, "CUDA_VISIBLE_DEVICES": ",".join(group)}) for group in groups
        ]
    cores = core_count()
    count = folds_at_a_time or (1 if device == "mps" else max(1, min(MAX_SLOTS, cores)))
    threads = str(max(1, cores // count))
    return [WorkerSlot(f"{device} {number}", {"OMP_NUM_THREADS": threads}) for number in range(count)]


def visible_gpus() -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES allows, by nvidia-smi's numbers; none without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        present = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return []
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return present if allowed is None else [gpu for gpu in present if gpu in allowed.split(",")]


def available_device(device: str) -> str:
    """The device, once it is known to exist; "auto" is CUDA where there is a GPU, else the CPU.

    Raises:
        UserError: this machine does not have it.
    """
    if device == "auto":
        return "cuda" if visible_gpus() else "cpu"
    if device == "cuda" and not visible_gpus():
        raise UserError("no GPU found (nvidia-smi shows none): give --device cpu, or see factorizer-nnunet doctor")
    if device == "mps":
        import torch  # takes seconds

        if not torch.backends.mps.is_available():
            raise UserError("PyTorch finds no Apple GPU here: give --device cpu")
    return device


def command_environment(folders: Folders, slot: WorkerSlot, device: str, current: Mapping[str, str]) -> dict[str, str]:
    """The complete environment of a command; the user's variables stay, except for the folders and those of the slot.

    By default nnU-Net starts 8 to 12 workers for each command: too many for a share of the cores.
    """
    few_workers = (
        {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "2", "OMP_WAIT_POLICY": "PASSIVE"} if device == "cpu" else {}
    )
    trainers = {EXT_TRAINER_VARIABLE: ext_trainer_value(current.get(EXT_TRAINER_VARIABLE))}
    return {**few_workers, **current, **folders.variables, **trainers, **slot.variables}


def slurm_slot(settings: RunSettings) -> WorkerSlot:
    """The slot of a cluster job: SLURM has chosen its GPUs and cores."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK", "1")
    return WorkerSlot("slurm", {} if settings.device == "cuda" else {"OMP_NUM_THREADS": cores})
