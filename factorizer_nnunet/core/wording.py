"""Numbers and lists in messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def short(value: float | None, digits: int = 3) -> str:
    """A number with this many significant digits, or all digits of its integer part; never with an exponent."""
    if value is None:
        return "–"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-4 else "0"


def lengths(values: Iterable[float]) -> str:
    """Values along the axes of an image, such as "240 × 240 × 155"."""
    return " × ".join(map(short, values))


def duration(seconds: float) -> str:
    """A time in the largest unit that says enough: 40 s, 12 min, 3 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.0f} h"


def today() -> str:
    """The local date, such as 2026-03-14, for titles of pages."""
    return datetime.now().astimezone().strftime("%Y-%m-%d")
