"""Tables in Markdown that are also readable in a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]], right: bool = False) -> str:
    """A table from rows of cells, the first of which is the header; ``right`` aligns all columns but the first.

    Cells are text: HTML in a name stays visible and is not interpreted.
    """
    rows = [[" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<", *((">" if right else "<") * (len(widths) - 1))]
    lines = ["| " + " | ".join(map("{:{}{}}".format, row, sides, widths)) + " |" for row in rows]
    rules = ("-" * (width + 1) + (":" if side == ">" else "-") for side, width in zip(sides, widths, strict=True))
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])
