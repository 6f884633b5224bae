"""Run stock commands as subprocesses, some at a time, and end them with the demo, however that ends.

A job's result appears under its final name only when its command ended well. The commands run in process groups of
their own, so that an interrupt reaches their workers, too; those of a demo that was killed outright are found by an
environment variable and ended before anything is run again.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.processes import end_marked, stop_groups
from factorizer_nnunet.demo.progress import LineWatcher, Reporter
from factorizer_nnunet.demo.workspace import Workspace

OWNER_VARIABLE = "FACTORIZER_NNUNET_DEMO"  # holds the demo's folder in every process it starts
_POLL_SECONDS = 0.3
_HEARTBEAT_SECONDS = 20
_GRACE_SECONDS = 5


def _silent(line: str) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command: `argv` is asked for when it starts, since it may depend on what a killed run left behind."""

    name: str
    argv: Callable[[], list[str]]
    outputs: tuple[Path, ...]
    finish: Callable[[], None] = lambda: None  # turns the command's result into `outputs`
    watch: LineWatcher = _silent
    after: tuple[str, ...] = ()  # names of the jobs that must be done before


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    log_path: Path
    log: IO[str]
    started: float = field(default_factory=time.monotonic)


def run_jobs(
    jobs: Sequence[Job], lanes: int, workspace: Workspace, environment: Mapping[str, str], reporter: Reporter
) -> None:
    """Run all jobs that are not done, at most `lanes` at a time, each as soon as those it needs are done.

    Raises:
        UserError: a command failed, with the end of its output; the others are stopped, what is done stays done.
    """
    waiting = [job for job in jobs if not workspace.is_done(job.name, job.outputs)]
    done = {job.name for job in jobs} - {job.name for job in waiting}
    if done:
        reporter.say(f"already there: {', '.join(job.name for job in jobs if job.name in done)}")
    running: list[_Running] = []
    try:
        while waiting or running:
            for job in [job for job in waiting if done.issuperset(job.after)][: lanes - len(running)]:
                waiting.remove(job)
                running.append(_start(job, workspace, environment, reporter))
            time.sleep(_POLL_SECONDS)
            for item in list(running):
                _relay(item, reporter)
                if item.process.poll() is None:
                    continue
                running.remove(item)
                _finish(item, workspace, reporter)
                done.add(item.job.name)
            if running and reporter.silence > _HEARTBEAT_SECONDS:
                reporter.say(f"still working on: {', '.join(item.job.name for item in running)}")
    finally:
        stop_groups([item.process for item in running], _GRACE_SECONDS)
        for item in running:
            item.log.close()


def _start(job: Job, workspace: Workspace, environment: Mapping[str, str], reporter: Reporter) -> _Running:
    argv = job.argv()
    log_path = workspace.logs / f"{job.name}.log"
    reporter.say(f"{job.name} starts")
    reporter.command(argv, log_path)
    with log_path.open("ab") as output:
        offset = output.tell()
        process = subprocess.Popen(
            argv,
            env={**os.environ, **environment, OWNER_VARIABLE: str(workspace.out), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    log = log_path.open(encoding="utf-8", errors="replace")
    log.seek(offset)
    return _Running(job, process, log_path, log)


def _relay(item: _Running, reporter: Reporter) -> None:
    """Tell what the command has written since the last look; an unfinished line waits for its end."""
    while True:
        position = item.log.tell()
        line = item.log.readline()
        if not line.endswith("\n"):
            item.log.seek(position)
            return
        message = item.job.watch(line)
        if message is not None:
            reporter.say(message)


def _finish(item: _Running, workspace: Workspace, reporter: Reporter) -> None:
    _relay(item, reporter)
    item.log.close()
    status = item.process.returncode
    if status == 0:
        item.job.finish()
    missing = [path for path in item.job.outputs if not path.exists()]
    if status != 0 or missing:
        lines = item.log_path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
        tail = "\n".join(f"  {line}" for line in lines[-8:])
        why = f"ended with status {status}" if status else f"left no {missing[0]}"
        raise UserError(f"{item.job.name} {why}; the end of {item.log_path}:\n{tail}\nMend it and run the demo again")
    seconds = time.monotonic() - item.started
    workspace.mark_done(item.job.name, seconds)
    reporter.say(f"{item.job.name} done in {seconds:.0f} s")


def end_left_over(workspace: Workspace) -> int:
    """End the commands that a killed demo in this folder left running; returns how many processes there were.

    Call it while holding the folder: then no living demo owns them.
    """
    return end_marked(OWNER_VARIABLE, str(workspace.out))
