"""Run one step: set aside what a killed attempt left, run the commands, log and measure, check the result."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from factorizer_nnunet.core import interrupts
from factorizer_nnunet.core.atomic_files import clear_drafts, draft_of, remove_draft
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import Stamp, take_stamps
from factorizer_nnunet.core.processes import script, stop_groups
from factorizer_nnunet.core.set_aside import INCOMPLETE, OUTDATED, set_aside
from factorizer_nnunet.running.command_lines import Command
from factorizer_nnunet.running.gpu_memory import watched
from factorizer_nnunet.running.measurements import Attempt, add_attempt
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.sources import known_stamps
from factorizer_nnunet.running.step import State, Step

NO_SPACE = "No space left on device"
STOPPED = "stopped by a signal, after saving"
_TAIL_LINES, _TAIL_CHARACTERS = 12, 4000
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


@dataclass
class Children:
    """The commands that are running, so that an interrupted run can end them all."""

    running: set[subprocess.Popen] = field(default_factory=set)
    stopped: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)  # reentrant: a signal may come while it is held

    def start(self, argv: Command, environment: Mapping[str, str], log: Path) -> subprocess.Popen | None:
        """Start a command in its own process group; None once all have been stopped."""
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
        """Ask every command to save and end, wait this long for each, then stop the rest."""
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
        """End all commands with their workers; none starts afterwards."""
        with self.lock:
            self.stopped = True
            running = list(self.running)
        stop_groups(running, grace_seconds)


def run_step(step: Step, paths: RunPaths, environment: Mapping[str, str], children: Children) -> str | None:
    """Run a step that is not done; returns why it failed, None if it did not.

    Args:
        environment: the complete environment of the commands.
    """
    gpus = [gpu for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu] if step.on_device else []
    started = time.monotonic()
    attempt = _Attempt(step, paths, environment, children)
    with watched(gpus) as gpu:
        try:
            error = attempt.run()
        except (OSError, UserError) as problem:
            error = str(problem)
        except Exception as problem:  # whatever it is, the other steps continue for hours
            error = f"{type(problem).__name__}: {problem}"
    measured = Attempt(
        seconds=round(time.monotonic() - started, 3),
        memory_gb=round(attempt.memory_gb, 2),
        gpu_memory_gb=None if gpu.gb is None else round(gpu.gb, 2),
        error=None if children.stopped else error,  # an interruption by the user is not a failure, but it cost time
    )
    with contextlib.suppress(OSError):  # a full disk must not end the run because of a measurement
        add_attempt(paths.measurements(step.name), measured)
    return error


@dataclass
class _Attempt:
    step: Step
    paths: RunPaths
    environment: Mapping[str, str]
    children: Children
    memory_gb: float = 0.0  # peak of the largest process so far

    @property
    def log(self) -> Path:
        return self.paths.log(self.step.name)

    def run(self) -> str | None:
        """Run all commands and check the result; returns why the step failed, None if it did not."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        state = self.step.look()
        if state.blocked:
            return state.blocked
        for line in self.step.prepare():
            self._tell(line)
        self._clear_the_way(state)
        sources = {} if self.step.derived is None else self.step.derived().sources
        made_from = take_stamps(sources, known_stamps(self.paths))
        if self.step.recorded_first:
            self._record(made_from)
        options = self.step.options()
        folder = self.step.appears
        draft = None if folder is None else _new_draft(folder)
        for command in self.step.commands():
            status = self._run_command((*command, *options), draft)
            if status != 0:
                return STOPPED if status == interrupts.STOPPED else _failure(command, status, self.log)
        if folder is not None and draft is not None and draft.exists():  # a step without commands leaves no draft
            draft.rename(folder)
        self.step.finish()
        self._record(made_from)
        state = self.step.look()
        if state.done:
            return None
        return state.blocked or f"its commands succeeded, but it is incomplete ({state.progress or 'no result'})"

    def _record(self, made_from: Mapping[str, Stamp]) -> None:
        """Record what the result is made from: the sources as they were before the commands."""
        if self.step.derived is not None:
            dataclasses.replace(self.step.derived(), sources=made_from).write_record()

    def _clear_the_way(self, state: State) -> None:
        """Set aside what stands in the way of another attempt, and say so: it may be all that is left of long work."""
        for paths, why in ((state.incomplete, INCOMPLETE), (state.outdated, OUTDATED)):
            for path in paths:
                self._tell(f"{path} is {why} and renamed to {set_aside(path, why).name}")
        for draft in state.drafts:
            remove_draft(draft)

    def _tell(self, line: str) -> None:
        tqdm.write(f"{self.step.name}: {line}")
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}\n")

    def _run_command(self, command: Command, draft: Path | None) -> int:
        """Run one command, which writes to ``draft`` instead of the final folder; returns its exit status."""
        argv = tuple(str(draft) if draft is not None and word == str(self.step.appears) else word for word in command)
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(f"\n$ {' '.join(argv)}\n")
        program = sys.executable if argv[0] == "python" else script(argv[0])
        process = self.children.start((program, *argv[1:]), self.environment, self.log)
        if process is None:
            return 130
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        with self.children.lock:
            self.children.running.discard(process)
        self.memory_gb = max(self.memory_gb, usage.ru_maxrss * _MAXRSS_BYTES / 1e9)
        return process.returncode


def _new_draft(folder: Path) -> Path:
    """The name under which commands write a folder; what killed attempts left there is removed."""
    clear_drafts(folder.parent, folder.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return draft_of(folder)


def _failure(command: Command, status: int, log: Path) -> str:
    """Describe a failure by the end of the log, without a traceback's inner lines."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL_CHARACTERS))
        lines = stream.read().decode("utf-8", errors="replace").rstrip().splitlines()[-_TAIL_LINES:]
    if any(NO_SPACE in line for line in lines):
        return NO_SPACE
    messages = [line.strip() for line in lines if line.strip() and not line.startswith((" ", "$"))]
    return f"{command[0]} ended with status {status}: {messages[-1] if messages else 'it wrote nothing'}"
