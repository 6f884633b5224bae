"""The table of steps during a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from factorizer_nnunet.core.locks import is_locked
from factorizer_nnunet.nnunet.integrity import newest
from factorizer_nnunet.running.measurements import read_attempts
from factorizer_nnunet.running.progress import step_progress
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.slurm_queue import queued_jobs
from factorizer_nnunet.running.step import Step
from factorizer_nnunet.running.steps import build_steps
from factorizer_nnunet.running.summary import DONE, FAILED, WAITING

RUNNING = "running"


@dataclass(frozen=True)
class StepStatus:
    """One line: a step, its state, and its progress or why it failed."""

    name: str
    state: str
    detail: str


def read_status(settings: RunSettings) -> list[StepStatus]:
    """Read the state of every step from its files, the lock of the run, and SLURM's queue."""
    queue, local = queued_jobs(settings), is_locked(settings.paths.lock)
    return [_status(step, settings, queue.get(step.name), local) for step in build_steps(settings)]


def _status(step: Step, settings: RunSettings, job: str | None, local: bool) -> StepStatus:
    paths, seen = settings.paths, step.look()
    if seen.done:
        return StepStatus(step.name, DONE, "")
    if seen.blocked:
        return StepStatus(step.name, FAILED, seen.blocked)
    progress = step_progress(step, settings, seen)
    if job is not None:
        state = RUNNING if job.startswith("RUNNING") else WAITING
        return StepStatus(step.name, state, ", ".join(part for part in (progress, f"SLURM: {job}") if part))
    log, measured = paths.log(step.name), paths.measurements(step.name)
    begun = newest([log]) > newest([measured])
    if begun and local and newest([log]) >= newest([paths.request]):  # else a killed run began it
        return StepStatus(step.name, RUNNING, progress)
    attempts = read_attempts(measured)
    if attempts and attempts[-1].error and not begun:
        return StepStatus(step.name, FAILED, f"{attempts[-1].error} (log: {log})")
    return StepStatus(step.name, WAITING, progress)


def all_done(lines: Sequence[StepStatus]) -> bool:
    """Whether every step is done."""
    return all(line.state == DONE for line in lines)


def status_table(lines: Sequence[StepStatus]) -> str:
    """The lines in columns, and the number of steps done."""
    width = max(len(line.name) for line in lines)
    table = [f"{line.name:<{width}}  {line.state:<8} {line.detail}".rstrip() for line in lines]
    done = sum(line.state == DONE for line in lines)
    return "\n".join([*table, f"{done} of {len(lines)} steps done"])
