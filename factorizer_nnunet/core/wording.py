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


def today() -> str:
    """The local date, such as 2026-03-14, for titles of pages."""
    return datetime.now().astimezone().strftime("%Y-%m-%d")
