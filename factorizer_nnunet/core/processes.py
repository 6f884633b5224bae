"""Commands in process groups of their own: found next to this Python, and ended together with all their workers.

A runner that is killed leaves its commands running. They carry an environment variable with the runner's folder, so
that the next runner can find and end them before it starts anything in the same place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from factorizer_nnunet.core.errors import UserError


def core_count() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def script(name: str) -> str:
    """Return the path of a console script installed next to this Python.

    Raises:
        UserError: it does not exist.
    """
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        if (folder / name).is_file():
            return str(folder / name)
    raise UserError(
        f"{name} is not installed next to {sys.executable}; install this package there again (pip install .)"
    )


def stop_groups(processes: Sequence[subprocess.Popen], grace_seconds: float) -> None:
    """End process groups with SIGTERM, and those that are left after ``grace_seconds`` with SIGKILL."""
    end = time.monotonic() + grace_seconds
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))
        # nnU-Net's workers outlive a terminated parent, so the group is always killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_marked(variable: str, value: str) -> int:
    """Kill all other processes whose environment contains ``variable=value``; returns how many there were.

    Needs /proc (Linux); elsewhere nothing is found.
    """
    found = list(_marked(f"{variable}={value}".encode()))
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def _marked(entry: bytes) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_marked = entry in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # another user's, or ended meanwhile
            continue
        if is_marked and int(folder.name) != os.getpid():
            yield int(folder.name)
