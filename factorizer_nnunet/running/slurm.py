"""The SLURM executor: one job per step, with dependencies, through submitit. SLURM does all scheduling.

A job builds the graph of steps for itself, runs its own step unless it is done, and is put back into the queue when
it is preempted or its time is up: the step then resumes from what it has left on disk. A step with a job in SLURM's
queue is not submitted again.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.running.checks import check_after_planning, check_before_planning
from factorizer_nnunet.running.execution import STOPPED, Children, run_step
from factorizer_nnunet.running.request import write_request
from factorizer_nnunet.running.run import held_run, note_existing, write_results
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.slurm_queue import SUMMARY, job_prefix, queued
from factorizer_nnunet.running.step import Step
from factorizer_nnunet.running.steps import build_steps, is_planning, needs_checked_plans
from factorizer_nnunet.running.worker_slots import command_environment, slurm_slot

if TYPE_CHECKING:
    from submitit import SlurmExecutor
    from submitit.helpers import DelayedSubmission

SAVING_SECONDS = 120  # between SLURM's warning and the end of a job: for a checkpoint
MAX_TIMEOUTS = 100  # a fold may need many jobs of a short partition
_FINISHING_SECONDS = 20  # the part of SAVING_SECONDS reserved for putting the job back
_WARNING = "USR1"  # our trainer then saves; stock trainers end, and resume from their last checkpoint


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What each job requests from SLURM; None is the cluster's default.

    Attributes:
        time: in the form of ``sbatch --time``, such as ``2-00:00:00``.
        memory_gb: in GB.
        further: more options of sbatch, ``KEY=VALUE``.
    """

    partition: str | None = None
    cpu_partition: str | None = None
    time: str = "1-00:00:00"
    cpus: int = 8
    memory_gb: float | None = None
    account: str | None = None
    qos: str | None = None
    further: tuple[str, ...] = ()


class StepJob:
    """What a job does: one step of a run."""

    def __init__(self, settings: RunSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._children: Children | None = None

    def __call__(self) -> None:
        step = next(step for step in build_steps(self._settings) if step.name == self._name)
        if step.look().done:
            return
        if needs_checked_plans(step):
            check_after_planning(self._settings)
        self._children = Children()
        settings, slot = self._settings, slurm_slot(self._settings)
        environment = command_environment(settings.folders, slot, settings.device, os.environ)
        error = run_step(step, settings.paths, environment, self._children)
        if error == STOPPED and not _is_ending():  # preempted by SIGTERM alone: let submitit put the job back
            signal.raise_signal(getattr(signal, f"SIG{_WARNING}"))
        if error is not None:
            raise RuntimeError(f"{self._name}: {error}\nits log: {settings.paths.log(self._name)}")

    def checkpoint(self) -> DelayedSubmission:
        """Let the command save and end; called by submitit before the job is put back."""
        from submitit.helpers import DelayedSubmission

        if self._children is not None:
            self._children.interrupt(SAVING_SECONDS - _FINISHING_SECONDS)
        return DelayedSubmission(StepJob(self._settings, self._name))


def _is_ending() -> bool:
    """Whether SLURM is ending this job: it was cancelled, and must stay so, or SLURM itself puts it back."""
    query = ["squeue", "--noheader", "--format=%T", f"--jobs={os.environ.get('SLURM_JOB_ID', '')}"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return answer.stdout.strip() == "COMPLETING"


def submit_run(settings: RunSettings, options: SlurmOptions) -> dict[str, str]:
    """Submit a job for every step that is neither done nor in the queue; returns their numbers by step.

    Raises:
        UserError: something is wrong with the data, the settings or SLURM, or submitit is missing.
    """
    executor_class = _submitit()
    check_slurm(options)
    queued(settings)  # refuses if another run's jobs are in the queue
    check_before_planning(settings)
    with held_run(settings):
        steps = build_steps(settings)
        if all(step.look().done for step in steps if is_planning(step)):
            check_after_planning(settings)
        write_request(settings)
        note_existing(settings, steps)
        executor = executor_class(settings.paths.cluster, max_num_timeout=MAX_TIMEOUTS)
        return _submit_missing(settings, options, steps, executor)


def _submit_missing(
    settings: RunSettings, options: SlurmOptions, steps: Sequence[Step], executor: SlurmExecutor
) -> dict[str, str]:
    jobs = {name: number for name, (number, _) in queued(settings).items()}
    submitted: dict[str, str] = {}
    unfinished: set[str] = set()
    for step in steps:
        # A step after an unfinished one gets a job even if it is done now: its result may be outdated then.
        if step.look().done and unfinished.isdisjoint(step.after):
            continue
        unfinished.add(step.name)
        if step.name not in jobs:
            needs = [jobs[name] for name in step.after if name in jobs]
            _describe(executor, settings, options, step.name, step.on_device, "afterok", needs)
            jobs[step.name] = submitted[step.name] = executor.submit(StepJob(settings, step.name)).job_id
    if submitted:  # also after an earlier summary in the queue, which does not wait for these
        _describe(executor, settings, options, SUMMARY, False, "afterany", list(jobs.values()))
        submitted[SUMMARY] = executor.submit(write_results, settings).job_id
    return submitted


def _describe(
    executor: SlurmExecutor,
    settings: RunSettings,
    options: SlurmOptions,
    name: str,
    on_device: bool,
    kind: str,
    needs: Sequence[str],
) -> None:
    """Set the parameters of the next job.

    Args:
        kind: of the dependencies, as for ``sbatch --dependency``.
        needs: numbers of the jobs that it depends on.
    """
    further = dict(text.partition("=")[::2] for text in options.further)
    # Jobs after a failed one must not wait forever; "requeue" lets SLURM put back the jobs that it preempts.
    extra = {"kill-on-invalid-dep": "yes", "requeue": True, **further}
    parameters = {
        "job_name": job_prefix(settings) + name,
        "partition": options.partition if on_device else options.cpu_partition,
        "time": minutes(options.time),
        "cpus_per_task": options.cpus,
        "mem": None if options.memory_gb is None else f"{round(options.memory_gb * 1024)}MB",
        "gpus_per_node": settings.gpus_per_fold if on_device and settings.device == "cuda" else None,
        "account": options.account,
        "qos": options.qos,
        "dependency": f"{kind}:{':'.join(needs)}" if needs else None,
        "signal_delay_s": SAVING_SECONDS,
        "stderr_to_stdout": True,
        "setup": [f"export SUBMITIT_PREEMPT_SIGNAL={_WARNING}"],
        "additional_parameters": extra,
    }
    executor.parameters.clear()  # of the job before
    executor.update_parameters(**{key: value for key, value in parameters.items() if value is not None})


def minutes(text: str) -> int:
    """A time limit of sbatch in minutes, rounded up.

    Raises:
        UserError: it has none of sbatch's forms.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise UserError(f"invalid --time {text}: expected MINUTES, HH:MM:SS, D-HH or D-HH:MM:SS")
    days, *clock = (None if part is None else int(part) for part in match.groups())
    numbers = [number for number in clock if number is not None]
    # D-HH[:MM[:SS]] and HH:MM:SS begin with hours, MM[:SS] with minutes.
    units = (3600, 60, 1) if days is not None or len(numbers) == 3 else (60, 1)
    total = (days or 0) * 86400 + sum(number * unit for number, unit in zip(numbers, units, strict=False))
    if total == 0:
        raise UserError(f"invalid --time {text}: give more than 0")
    return -(-total // 60)


def check_slurm(options: SlurmOptions) -> None:
    """Check that SLURM answers and has the partitions.

    Raises:
        UserError: it does not, or an option is malformed.
    """
    minutes(options.time)
    if malformed := [text for text in options.further if not re.fullmatch(r"[a-z-]+=.+", text)]:
        raise UserError(f"--sbatch {malformed[0]} is not KEY=VALUE, such as constraint=a100")
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        raise UserError("SLURM's commands (sbatch, sinfo) are missing: run on a login node, or with --executor local")
    try:
        answer = subprocess.run(
            ["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        message = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        raise UserError(f"SLURM does not answer: {message}") from error
    present = sorted(set(answer.stdout.split()))
    wrong = [name for name in (options.partition, options.cpu_partition) if name is not None and name not in present]
    if wrong:
        raise UserError(f"no partition {', '.join(dict.fromkeys(wrong))}: this cluster has {', '.join(present)}")


def _submitit() -> type[SlurmExecutor]:
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = _WARNING  # read when submitit is imported
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise UserError('--executor slurm needs submitit: pip install "factorizer_nnunet[slurm]"') from error
    return SlurmExecutor
