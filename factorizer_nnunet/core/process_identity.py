"""Which process wrote something, so that a later one knows whether it is still alive."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
import time
from pathlib import Path

_IDENTITY = re.compile(r"(\d+)-(\d+)-([0-9a-f]{8})")
_ENDED = "ZX"  # states of a process that was killed, but whose parent has not yet asked how it ended


def own_identity() -> str:
    """This process: its number, its start and the place where that number counts, such as ``4711-812345-0f3a99c2``.

    A number alone is used again, by another process or in another container; with the start it is not.
    """
    pid = os.getpid()
    return f"{pid}-{_start_of(pid) or 0}-{_place()}"


def is_identity(text: str) -> bool:
    """Whether a text has the form of ``own_identity``."""
    return _IDENTITY.fullmatch(text) is not None


def has_ended(identity: str) -> bool | None:
    """Whether the process has ended; None if this process cannot know, as of another host or container."""
    match = _IDENTITY.fullmatch(identity)
    if match is None or match[3] != _place():
        return None
    pid, start = int(match[1]), int(match[2])
    if start:
        return _start_of(pid) != start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False


def process_age() -> float:
    """Seconds since this process started; 0 on systems without /proc."""
    start = _start_of(os.getpid())
    return 0.0 if start is None else time.clock_gettime(time.CLOCK_BOOTTIME) - start / os.sysconf("SC_CLK_TCK")


def _start_of(pid: int) -> int | None:
    """When a living process started, in clock ticks since the machine did; None if it has ended, or without /proc."""
    try:
        # The name in parentheses may contain anything; after it come state (field 3) and the others: proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in _ENDED else int(fields[19])


@functools.cache
def _place() -> str:
    """A short hash of this boot of this machine and, in a container, of its numbering of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        numbering = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, numbering = socket.gethostname(), ""
    return hashlib.sha256(f"{boot} {numbering}".encode()).hexdigest()[:8]
