"""The jobs of a run in SLURM's queue, found by their names, so that no list of ours can disagree with the queue."""

from __future__ import annotations

import hashlib
import shutil
import subprocess

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.running.settings import RunSettings

SUMMARY = "summary"  # the job that ends a run


def job_prefix(settings: RunSettings) -> str:
    """The beginning of the names of a run's jobs: the data set, and a hash of its results folder."""
    digest = hashlib.sha256(str(settings.paths.results).encode()).hexdigest()[:6]
    return f"{settings.dataset}-{digest}-"


def queued_jobs(settings: RunSettings) -> dict[str, str]:
    """State and number of the jobs that wait or run, by step, such as ``RUNNING 4711``; none without SLURM."""
    if shutil.which("squeue") is None:
        return {}
    try:
        return {step: f"{state} {number}" for step, (number, state) in queued(settings).items()}
    except UserError:  # its commands may be installed without a cluster
        return {}


def queued(settings: RunSettings) -> dict[str, tuple[str, str]]:
    """Number and state of the jobs that wait or run, by step.

    Raises:
        UserError: SLURM does not answer.
    """
    query = ["squeue", "--me", "--noheader", "--format=%i|%T|%j"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"squeue cannot list the jobs in SLURM's queue ({error}): try again") from error
    prefix = job_prefix(settings)
    found = {}
    for line in answer.splitlines():
        number, state, name = line.split("|", 2)
        if name.startswith(prefix):
            found[name.removeprefix(prefix)] = (number, state)
    return found
