"""The parts of the measurement: commands with a limit of time, whose state is read from the working folder.

Each part has a folder with its results, a log, and ``state.json``, which is written when its command has ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.processes import stop_groups

ROOT = Path(__file__).resolve().parents[2]
STATE_FILE, LOG_FILE = "state.json", "log.txt"
_GRACE_SECONDS = 20  # for a command whose time is up; a training saves its checkpoint
_LEAST_SECONDS = 15  # a part that gets less is left for the next run


class State(str, Enum):
    """Of a part; the next run repeats all but those that are done, in this order."""

    WAITING = "waiting"
    UNFINISHED = "unfinished"  # its time was up
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One command.

    Attributes:
        name: also of its folder.
        seconds: that it gets at least, and that it usually needs.
        command: arguments of this Python.
        needs: packages without which the part is left out.
        env: further environment variables.
        fine: exit statuses that mean that there is a result.
    """

    name: str
    seconds: float
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    fine: tuple[int, ...] = (0,)

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.needs if find_spec(package) is None]


@dataclass(frozen=True)
class Ended:
    """How a part's last command ended."""

    state: State
    seconds: float = 0.0
    status: int | None = None


def ended(work: Path, part: Part) -> Ended:
    """How a part ended, as its folder says.

    Raises:
        UserError: its state has been edited.
    """
    content = read_complete_json(work / part.name / STATE_FILE)
    return Ended(State.WAITING) if content is None else Ended(**{**content, "state": State(content["state"])})


def run_parts(
    parts: Sequence[Part],
    work: Path,
    seconds: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run what is not done, in this order; what has been tried before comes last.

    A part gets its seconds, or more if the time is enough for all; when the time is up, the others wait for the next
    run.

    Args:
        parts: those whose packages are missing are left out.
        work: parent of their folders.
        seconds: for all of them.
        say: gets a line a part.
        clock: gives seconds.
    """
    end = clock() + seconds
    order = list(State)
    waiting = [part for part in parts if not part.missing() and ended(work, part).state is not State.DONE]
    waiting.sort(key=lambda part: order.index(ended(work, part).state))
    for number, part in enumerate(waiting):
        left = end - clock() - _GRACE_SECONDS
        share = left * part.seconds / sum(other.seconds for other in waiting[number:])
        limit = min(left, max(part.seconds, share))
        if limit < _LEAST_SECONDS:
            say(f"{part.name}: left for the next run, {max(0.0, left):.0f} s are too few")
            continue
        say(f"{part.name}: at most {limit:.0f} s")
        result = run_part(part, work, limit)
        say(f"{part.name}: {result.state.value} after {result.seconds:.0f} s ({work / part.name / LOG_FILE})")


def run_part(part: Part, work: Path, limit: float) -> Ended:
    """Run a part's command for at most ``limit`` seconds, and write how it ended."""
    folder = work / part.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STATE_FILE).unlink(missing_ok=True)
    start = time.monotonic()
    with (folder / LOG_FILE).open("w", encoding="utf-8") as log:
        status = _status(part, limit, log)
    state = State.UNFINISHED if status is None else State.DONE if status in part.fine else State.FAILED
    result = Ended(state, time.monotonic() - start, status)
    write_text_atomically(folder / STATE_FILE, json.dumps(asdict(result)) + "\n")
    return result


def _status(part: Part, limit: float, log: TextIO) -> int | None:
    """The exit status, or None if the time was up."""
    command, env = [sys.executable, *part.command], {**os.environ, **part.env}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        stop_groups([process], _GRACE_SECONDS)
