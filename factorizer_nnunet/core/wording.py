"""Numbers and lists in messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime


def count_of(number: int, what: str) -> str:
    """A number with what it counts, such as "1 case" and "2 cases"."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def list_of_problems(problems: Sequence[str], where: str) -> str:
    """An error of several lines, such as "2 problems in FOLDER, nothing was written" and one line for each."""
    return "\n  ".join([f"{count_of(len(problems), 'problem')} {where}:", *problems])


def first_few(names: Sequence[str], most: int = 5) -> str:
    """The first ``most`` of the names, followed by … if there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def duration(seconds: float) -> str:
    """A time in the largest unit that says enough: 40 s, 12 min, 3 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.0f} h"


def today() -> str:
    """The local date, such as 2026-03-14, for titles of pages."""
    return datetime.now().astimezone().strftime("%Y-%m-%d")
