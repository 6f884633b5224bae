"""The jobs of a run in SLURM's queue, found by their names, so that no list of ours can disagree with the queue."""

from __future__ import annotations

import hashlib
import shutil
import subprocess

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.running.settings import RunSettings

SUMMARY = "summary"  # the job that ends a run
Job = tuple[str, str]  # number and state


def job_prefix(settings: RunSettings) -> str:
    """The beginning of the names of a run's jobs: the data set, a hash of its results folder, and the run's name."""
    dataset = _dataset_prefix(settings)
    return f"{dataset}-" if settings.name is None else f"{dataset}.{settings.name}/"


def _dataset_prefix(settings: RunSettings) -> str:
    digest = hashlib.sha256(str(settings.paths.results).encode()).hexdigest()[:6]
    return f"{settings.dataset}-{digest}"


def queued_jobs(settings: RunSettings) -> dict[str, str]:
    """State and number of the jobs that wait or run, by step, such as ``RUNNING 4711``; none without SLURM."""
    return {step: f"{state} {number}" for step, (number, state) in _of_run(settings, _if_any(settings)).items()}


def queued(settings: RunSettings) -> dict[str, Job]:
    """The jobs that wait or run, by step.

    Raises:
        UserError: SLURM does not answer, or jobs of another run over the data set wait or run.
    """
    jobs = _all_jobs(settings)
    own = _of_run(settings, jobs)
    if others := len(jobs) - len(own):
        raise UserError(
            f"{count_of(others, 'job')} of another run over {settings.dataset} in SLURM's queue, which may prepare the "
            f"same data or train the same folds: wait for it, see factorizer-nnunet status -d {settings.dataset_id}"
        )
    return own


def refuse_queued(settings: RunSettings) -> None:
    """Refuse to work on a data set over which SLURM runs jobs.

    Raises:
        UserError: it does.
    """
    if jobs := _if_any(settings):
        found = f"{count_of(len(jobs), 'job')} over {settings.dataset} in SLURM's queue"
        raise UserError(f"{found}: wait for it, or end it with scancel")


def _of_run(settings: RunSettings, jobs: dict[str, Job]) -> dict[str, Job]:
    prefix = job_prefix(settings)
    return {name.removeprefix(prefix): job for name, job in jobs.items() if name.startswith(prefix)}


def _if_any(settings: RunSettings) -> dict[str, Job]:
    """All jobs over the data set; none without SLURM."""
    if shutil.which("squeue") is None:
        return {}
    try:
        return _all_jobs(settings)
    except UserError:  # its commands may be installed without a cluster
        return {}


def _all_jobs(settings: RunSettings) -> dict[str, Job]:
    """The jobs of all runs over the data set that wait or run, by name.

    Raises:
        UserError: SLURM does not answer.
    """
    query = ["squeue", "--me", "--noheader", "--format=%i|%T|%j"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"squeue cannot list the jobs in SLURM's queue ({error}): try again") from error
    jobs = (line.split("|", 2) for line in answer.splitlines())
    return {name: (number, state) for number, state, name in jobs if name.startswith(_dataset_prefix(settings))}
