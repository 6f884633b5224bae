"""nnU-Net's commands as a benchmark runs them: in folders of its own, with their output in a log."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.processes import script, stop_groups
from factorizer_nnunet.nnunet.environment import EXT_TRAINER_VARIABLE, environment_variables

ROOT = Path(__file__).resolve().parents[1]
STOCK, OURS = "nnUNetTrainerBenchmarkStock", "nnUNetTrainerBenchmarkRecipe"  # in benchmarks/ext_trainer
ITERATIONS_PER_EPOCH = 50
_GRACE_SECONDS = 60.0  # for a training to save its checkpoint


class CommandError(UserError):
    """A command failed; others may not."""


@dataclass(frozen=True)
class DatasetCommands:
    """Commands for one data set."""

    root: Path  # of nnU-Net's three folders
    dataset: str  # DatasetNNN_Name
    env: Mapping[str, str]

    @property
    def number(self) -> str:
        """The number in the name of the data set."""
        return str(int(self.dataset[7:10]))

    def run(self, *command: object, log: str) -> None:
        """Run an installed command; its output goes to ``logs/LOG.log``.

        Raises:
            SystemExit: the command failed; the message names the log.
        """
        try:
            run_command(*command, env=self.env, log=self.root / "logs" / f"{log}.log")
        except CommandError as error:
            sys.exit(f"error: {error}")


def run_command(*command: object, env: Mapping[str, str], log: Path) -> float:
    """Run an installed command, or ``python``, from the root of the repository; its output is added to ``log``.

    Returns:
        CPU seconds of it and its workers.

    Raises:
        CommandError: it failed; the message names the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = [script(str(command[0])), *map(str, command[1:])]
    before = _children_seconds()
    with log.open("a") as stream:
        process = subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=stream, stderr=stream, start_new_session=True)
        try:
            status = process.wait()
        except BaseException:
            stop_groups([process], _GRACE_SECONDS)
            raise
    if status:
        raise CommandError(f"{command[0]} ended with status {status}; see {log}")
    return _children_seconds() - before


def environment(root: Path, threads: int) -> dict[str, str]:
    """Environment of nnU-Net's commands: folders below ``root``, trainers of benchmarks, few worker processes."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),  # trainers and plans of benchmarks name classes of others
        **environment_variables(root, {EXT_TRAINER_VARIABLE: str(ROOT / "benchmarks" / "ext_trainer")}),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "2",
        "OMP_NUM_THREADS": str(threads),
    }


def trainer_name(base: str, iterations: float) -> str:
    """The trainer of ``base`` for this many iterations, rounded down to epochs of ITERATIONS_PER_EPOCH."""
    return f"{base}_{max(1, int(iterations) // ITERATIONS_PER_EPOCH)}epochs_{ITERATIONS_PER_EPOCH}iters"


def _children_seconds() -> float:
    """CPU seconds of all commands that have ended, and of their workers."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
