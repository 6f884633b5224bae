"""Memory that this process may still use: of the machine, of its control group, and by its limits."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def free_memory(root: Path = _ROOT) -> int:
    """Bytes that are free, less what limits of control groups (also of containers and SLURM) or ``ulimit`` withhold.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_left_in_groups(root)]
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        bounds.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10)
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        if (soft := resource.getrlimit(limit)[0]) != resource.RLIM_INFINITY:
            bounds.append(soft)
    return max(0, min(bounds))


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group of this process, and each above it, has left; files that may be dropped count as free."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            base = root / "sys/fs/cgroup" / controllers
            limit, usage = (
                ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
            )
            inner = Path(path.lstrip("/"))
            for folder in (base / inner, *(base / parent for parent in inner.parents)):
                with contextlib.suppress(OSError, ValueError):  # not mounted here, or "max": no limit
                    used = int((folder / usage).read_text()) - _droppable(folder)
                    yield int((folder / limit).read_text()) - used


def _droppable(folder: Path) -> int:
    for line in (folder / "memory.stat").read_text().splitlines():
        name, value = line.split()
        if name == "inactive_file":
            return int(value)
    return 0
