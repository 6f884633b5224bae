"""Pieces of HTML, and the page around them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence

from factorizer_nnunet.core.wording import short
from factorizer_nnunet.pages.palette import line_of

# The browser enforces that the page loads nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def text_of(value: object) -> str:
    """Any text, escaped for HTML; undecodable bytes of file names are shown as \\udcXX."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


def breakable(name: str) -> str:
    """A long name as HTML that may wrap after - and _."""
    return re.sub(r"([_-])(?=[^_-])", r"\1<wbr>", text_of(name))


def embedded_json(data: object) -> str:
    """JSON inside a script element; no name in it can end the element, as ``</script>`` or ``<!--`` would."""
    text = json.dumps(data)  # ASCII, so also without line separators that end a line of JavaScript
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def table(heads: Sequence[str], rows: Iterable[str], sortable: bool = False) -> str:
    """A table of rows that are HTML, below column heads that are text."""
    cells = "".join(f'<th scope="col">{text_of(head)}</th>' for head in heads)
    return table_below(f"<tr>{cells}</tr>", rows, "sortable" if sortable else "")


def table_below(head: str, rows: Iterable[str], kind: str = "") -> str:
    """A table of rows below a head, all HTML; ``kind`` is a class of the style."""
    shown = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="scroll">{shown}<thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def cell(value: object, kind: str = "") -> str:
    """A table cell with text; ``kind`` is a class of the style."""
    return f'<td class="{kind}">{text_of(value)}</td>' if kind else f"<td>{text_of(value)}</td>"


def number(value: float | None, shown: str | None = None, *, undefined: str) -> str:
    """A table cell that sorts by its number; without one a dash, with the reason ``undefined`` to point at."""
    if value is None:
        return f'<td class="number">{dash(undefined)}</td>'
    return f'<td class="number" data-value="{value:.6g}">{text_of(short(value) if shown is None else shown)}</td>'


def dash(reason: str) -> str:
    """What is shown in place of an undefined value, with the reason to point at."""
    return f'<abbr title="{text_of(reason)}">–</abbr>'


def figure(caption: str, content: str) -> str:
    """A figure below its caption, both HTML."""
    return f"<figure><figcaption>{caption}</figcaption>{content}</figure>"


def charts(figures: Iterable[str], lead: str = "", kind: str = "charts") -> str:
    """Figures side by side, below a note if there is one, both HTML; "" without figures."""
    content = "".join(figures)
    return f'{note(lead) if lead else ""}<div class="{kind}">{content}</div>' if content else ""


def legend(regions: Iterable[str], more: str = "") -> str:
    """The names of regions with the colour and line style of their outlines; ``more`` is HTML."""
    items = []
    for number, name in enumerate(regions):
        line = line_of(number)
        drawn, period = line.dash[0], sum(line.dash)
        style = f"--k:{line.colour};--drawn:{drawn}px;--period:{period}px"
        items.append(f'<span><i class="line" style="{style}"></i>{text_of(name)}</span>')
    return f'<div class="legend">{"".join(items)}{more}</div>'


def note(content: str) -> str:
    """A paragraph in a soft colour; HTML."""
    return f'<p class="soft">{content}</p>'


def csv_button(name: str) -> str:
    """A button that saves the first sortable table of its section as NAME.csv."""
    return f'<button data-csv="{text_of(name)}">Download CSV</button>'


def details(summary: str, content: str) -> str:
    """Content, HTML, that is hidden until its summary, text, is clicked."""
    return f"<details><summary>{text_of(summary)}</summary>{content}</details>"


def sections(parts: Iterable[tuple[str, str, str]]) -> tuple[str, str]:
    """Links to the sections that have content, and these sections, from anchor, title, which is text, and HTML."""
    shown = [(anchor, text_of(title), content) for anchor, title, content in parts if content]
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in shown)
    bodies = (f'<section><h2 id="{anchor}">{title}</h2>{content}</section>' for anchor, title, content in shown)
    return links, f"<main>{''.join(bodies)}</main>"


def document(title: str, style: str, script: str, body: str) -> str:
    """A complete page, from a body that is HTML and a title that is text."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{text_of(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>\n'
        f"<body>{body}\n<script>{script}</script></body></html>\n"
    )
