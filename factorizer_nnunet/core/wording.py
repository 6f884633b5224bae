"""Numbers and lists in messages."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, what: str) -> str:
    """A number with what it counts, such as "1 case" and "2 cases"."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first ``most`` of the names, and … where there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
