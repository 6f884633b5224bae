"""Peak memory of GPUs while a block runs, as the driver counts it: nnU-Net's commands do not report theirs."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence

_SECONDS = 5.0


class PeakMemory:
    """The highest use so far, in GB (10⁹ bytes); None if none was measured."""

    gb: float | None = None


@contextlib.contextmanager
def watched(gpus: Sequence[str]) -> Iterator[PeakMemory]:
    """Sample the memory of these GPUs, by nvidia-smi's numbers; without GPUs or nvidia-smi nothing is measured."""
    peak, ended = PeakMemory(), threading.Event()
    if not gpus or shutil.which("nvidia-smi") is None:
        yield peak
        return

    def watch() -> None:
        while True:
            used = used_memory_gb(gpus)
            if used is not None:
                peak.gb = max(peak.gb or 0.0, used)
            if ended.wait(_SECONDS):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def used_memory_gb(gpus: Sequence[str]) -> float | None:
    """Memory in use on these GPUs together, in GB; None if nvidia-smi fails."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={','.join(gpus)}"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
        return sum(float(line) for line in answer.split()) * 2**20 / 1e9
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
