"""Commands as process groups of their own: found beside this Python, ended with all their workers, found again.

A runner that is killed outright leaves its commands running. They carry an environment variable with the runner's
folder, by which the next runner finds and ends them before it starts anything in the same place.
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
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def script(name: str) -> str:
    """Return the path of a console script installed beside this Python.

    Raises:
        UserError: it is not there.
    """
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        if (folder / name).is_file():
            return str(folder / name)
    raise UserError(
        f"{name} is not installed beside {sys.executable}; install this package there again (pip install .)"
    )


def stop_groups(processes: Sequence[subprocess.Popen], grace_seconds: float) -> None:
    """End process groups: politely, and after ``grace_seconds`` for all of them outright."""
    end = time.monotonic() + grace_seconds
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))
        # nnU-Net's workers outlive a terminated parent, so the group is ended whatever the parent did.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_marked(variable: str, value: str) -> int:
    """Kill all processes whose environment holds ``variable=value``, but not this one; returns how many there were.

    Works where /proc exists (Linux); elsewhere nothing is found.
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
        except OSError:  # another user's, or gone meanwhile
            continue
        if is_marked and int(folder.name) != os.getpid():
            yield int(folder.name)
