"""Run one step to its end: clear what a killed attempt left, run the commands, log, measure, look at the result."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.core import interrupts
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.processes import script, stop_groups
from factorizer_nnunet.running.command_lines import Command
from factorizer_nnunet.running.gpu_memory import watched
from factorizer_nnunet.running.measurements import Attempt, add_attempt
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.steps import Step

NO_SPACE = "No space left on device"
STOPPED = "stopped by a signal, after saving"
_TAIL_LINES, _TAIL_CHARACTERS = 12, 4000
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


@dataclass
class Children:
    """The commands that run now, so that whoever is interrupted can end them all."""

    running: set[subprocess.Popen] = field(default_factory=set)
    stopped: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)  # a signal may come while it is held

    def start(self, argv: Command, environment: Mapping[str, str], log: Path) -> subprocess.Popen | None:
        """Start a command in a process group of its own; None once all have been stopped."""
        with self.lock, log.open("ab") as output:
            if self.stopped:
                return None
            process = subprocess.Popen(
                argv,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.running.add(process)
            return process

    def interrupt(self, seconds: float) -> None:
        """Ask every command to save and end, give it this long, then stop what is left."""
        with self.lock:
            self.stopped = True
            running = list(self.running)
        for process in running:
            process.send_signal(signal.SIGUSR1)
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        stop_groups(running, 0)

    def stop(self, grace_seconds: float) -> None:
        """End all commands with their workers; no other starts afterwards."""
        with self.lock:
            self.stopped = True
            running = list(self.running)
        stop_groups(running, grace_seconds)


def run_step(step: Step, paths: RunPaths, environment: Mapping[str, str], children: Children) -> str | None:
    """Run a step that is not done; returns why it failed, None if it did not.

    Args:
        environment: of the commands, whole.
    """
    log = paths.log(step.name)
    gpus = [gpu for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu] if step.on_device else []
    started = time.monotonic()
    memory_gb = 0.0
    error = None
    with watched(gpus) as gpu:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            for file in step.state().left_over:
                file.unlink()
            options = step.options()
            draft = _draft(step)
            for command in step.commands():
                status, used_gb = _run((*command, *options), draft, step, log, environment, children)
                memory_gb = max(memory_gb, used_gb)
                if status != 0:
                    error = STOPPED if status == interrupts.STOPPED else _failure(command, status, log)
                    break
            else:
                _appear(step, draft)
                step.finish()
                if not step.state().done:
                    error = f"its commands ended well, but left it unfinished ({step.state().progress or 'no result'})"
        except (OSError, UserError) as problem:
            error = str(problem)
        except Exception as problem:  # whatever it is, the other steps go on for hours
            error = f"{type(problem).__name__}: {problem}"
    attempt = Attempt(
        seconds=round(time.monotonic() - started, 3),
        memory_gb=round(memory_gb, 2),
        gpu_memory_gb=None if gpu.gb is None else round(gpu.gb, 2),
        error=error,
    )
    if not children.stopped:
        with contextlib.suppress(OSError):  # a full disk must not end the run for a summary's sake
            add_attempt(paths.measurements(step.name), attempt)
    return error


def _run(
    command: Command,
    draft: Path | None,
    step: Step,
    log: Path,
    environment: Mapping[str, str],
    children: Children,
) -> tuple[int, float]:
    """Run one command; returns its exit status and the peak memory of its largest process in GB."""
    argv = tuple(str(draft) if draft is not None and word == str(step.appears) else word for word in command)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"\n$ {' '.join(argv)}\n")
    program = sys.executable if argv[0] == "python" else script(argv[0])
    process = children.start((program, *argv[1:]), environment, log)
    if process is None:
        return 130, 0.0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    with children.lock:
        children.running.discard(process)
    return process.returncode, usage.ru_maxrss * _MAXRSS_BYTES / 1e9


def _draft(step: Step) -> Path | None:
    if step.appears is None:
        return None
    draft = step.appears.with_name(f".{step.appears.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.parent.mkdir(parents=True, exist_ok=True)
    return draft


def _appear(step: Step, draft: Path | None) -> None:
    if draft is not None and draft.exists():  # a step without commands has none
        draft.rename(step.appears)


def _failure(command: Command, status: int, log: Path) -> str:
    """What a summary shows of a failure: the end of the log, without the traceback's inner lines."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL_CHARACTERS))
        lines = stream.read().decode("utf-8", errors="replace").rstrip().splitlines()[-_TAIL_LINES:]
    if any(NO_SPACE in line for line in lines):
        return NO_SPACE
    told = [line.strip() for line in lines if line.strip() and not line.startswith((" ", "$"))]
    return f"{command[0]} ended with status {status}: {told[-1] if told else 'it wrote nothing'}"
