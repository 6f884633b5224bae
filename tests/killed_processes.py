"""What killed processes leave: drafts, and processes."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


@functools.cache
def ended_identity() -> str:
    """The identity of a process that has ended."""
    code = "from factorizer_nnunet.core.process_identity import own_identity; print(own_identity())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def left_draft(path: Path) -> Path:
    """The draft of ``path`` that a killed process left, a folder with a file."""
    draft = path.with_name(f".{path.name}.{ended_identity()}.partial")
    draft.mkdir(parents=True)
    (draft / "half").write_text("half")
    return draft


def command_of(pid: int) -> str:
    """What a process runs; empty if it has ended, also if nobody has asked for its exit status yet."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def wait_for(found: Callable[[], list[int]], count: int) -> list[int]:
    """The processes that ``found`` gives, once there are ``count``."""
    for _ in range(300):
        if len(result := found()) >= count:
            return result
        time.sleep(0.1)
    raise AssertionError(f"{found()} instead of {count}")
