"""Pieces of HTML, and what several sections of the report's page look up in the facts."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]  # as report_facts gives them, or a part of them


def text_of(value: object) -> str:
    """Any text, safe within HTML; bytes of file names that are no text show as \\udcXX."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


def short(value: float | None, digits: int = 3) -> str:
    """A number with so many digits or, if it is large, all before the point; never with an exponent of ten."""
    if value is None:
        return "–"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-4 else "0"


def table(heads: Sequence[str], rows: Iterable[str], sortable: bool = False) -> str:
    """A table of rows that are HTML already, below heads that are text."""
    cells = "".join(f'<th scope="col">{text_of(head)}</th>' for head in heads)
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def number(value: float | None, shown: str | None = None) -> str:
    """A cell that sorts by the number; without one it is empty."""
    if value is None:
        return '<td class="number"></td>'
    return f'<td class="number" data-value="{value:.6g}">{text_of(short(value) if shown is None else shown)}</td>'


def row_anchors(facts: Facts) -> dict[str, str]:
    """The anchor of each case's row in the table."""
    return {case: f"case-{number}" for number, case in enumerate(facts["cases"])}


def labelled(facts: Facts) -> list[Facts]:
    return [case for case in facts["cases"].values() if case["label"] is not None]


def registrations(facts: Facts) -> list[tuple[str, Facts]]:
    """Case and registration, failed ones first."""
    found = [(name, one) for name, case in facts["cases"].items() for one in case["registrations"]]
    return sorted(found, key=lambda pair: pair[1]["ok"])
