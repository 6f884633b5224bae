"""Pieces of HTML, and the page around them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

# The policy makes sure of what is promised: nothing is loaded from anywhere.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def text_of(value: object) -> str:
    """Any text, safe within HTML; bytes of file names that are no text show as \\udcXX."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


def breakable(name: str) -> str:
    """A long name as HTML that may break after its - and _."""
    return re.sub(r"([_-])(?=[^_-])", r"\1<wbr>", text_of(name))


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


def document(title: str, style: str, script: str, body: str) -> str:
    """A whole page of a body that is HTML already, below a title that is text."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{text_of(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>\n'
        f"<body>{body}\n<script>{script}</script></body></html>\n"
    )
