"""The table of steps while a run goes on."""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from dataclasses import dataclass

from factorizer_nnunet.nnunet.integrity import newest
from factorizer_nnunet.running.measurements import read_attempts
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.progress import step_progress
from factorizer_nnunet.running.queue import queued_jobs
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.steps import Step, build_steps
from factorizer_nnunet.running.summary import DONE, FAILED, WAITING

RUNNING = "running"


@dataclass(frozen=True)
class StepStatus:
    """One line: a step, the word for its state, and how far it is or why it failed."""

    name: str
    state: str
    detail: str


def read_status(settings: RunSettings) -> list[StepStatus]:
    """The state of every step, from the files, from who holds the run's lock, and from SLURM's queue."""
    paths = RunPaths(settings.folders, settings.dataset)
    queue, local = queued_jobs(settings), _is_held(paths)
    return [_status(step, paths, queue.get(step.name), local) for step in build_steps(settings)]


def _status(step: Step, paths: RunPaths, job: str | None, local: bool) -> StepStatus:
    if step.state().done:
        return StepStatus(step.name, DONE, "")
    progress = step_progress(step, paths)
    if job is not None:
        state = RUNNING if job.startswith("RUNNING") else WAITING
        return StepStatus(step.name, state, ", ".join(part for part in (progress, f"SLURM: {job}") if part))
    log, measured = paths.log(step.name), paths.measurements(step.name)
    begun = newest([log]) > newest([measured])
    if begun and local and newest([log]) >= newest([paths.request]):  # else it was begun by a run that was killed
        return StepStatus(step.name, RUNNING, progress)
    attempts = read_attempts(measured)
    if attempts and attempts[-1].error and not begun:
        return StepStatus(step.name, FAILED, f"{attempts[-1].error} (log: {log})")
    return StepStatus(step.name, WAITING, progress)


def _is_held(paths: RunPaths) -> bool:
    """Whether a run works here now."""
    if not paths.lock.exists():
        return False
    with paths.lock.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def all_done(lines: Sequence[StepStatus]) -> bool:
    """Whether nothing is left to do."""
    return all(line.state == DONE for line in lines)


def status_table(lines: Sequence[StepStatus]) -> str:
    """The lines in columns, and their sum."""
    width = max(len(line.name) for line in lines)
    table = [f"{line.name:<{width}}  {line.state:<8} {line.detail}".rstrip() for line in lines]
    done = sum(line.state == DONE for line in lines)
    return "\n".join([*table, f"{done} of {len(lines)} steps done"])
