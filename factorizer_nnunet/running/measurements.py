"""What attempts at a step cost and how they ended: for the summary only, no step's state is read from here."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at a step.

    Attributes:
        seconds: wall time.
        memory_gb: peak resident memory of its largest process, in GB (10⁹ bytes); on Linux no less than that of the
            process which started it.
        gpu_memory_gb: peak use of its GPUs, None without them.
        error: why it failed; None if it did not, or was interrupted.
    """

    seconds: float
    memory_gb: float
    gpu_memory_gb: float | None
    error: str | None


def add_attempt(file: Path, attempt: Attempt) -> None:
    """Append an attempt to a step's file."""
    attempts = [asdict(one) for one in (*read_attempts(file), attempt)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(file, json.dumps({"attempts": attempts}, indent=4) + "\n")


def read_attempts(file: Path) -> list[Attempt]:
    """Read the attempts, the oldest first; none if the file is missing or unreadable."""
    with contextlib.suppress(UserError, TypeError, KeyError):
        content = read_complete_json(file)
        if content is not None:
            return [Attempt(**entry) for entry in content["attempts"]]
    return []
