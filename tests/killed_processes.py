"""What killed processes leave."""

from __future__ import annotations

import functools
import subprocess
import sys
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
