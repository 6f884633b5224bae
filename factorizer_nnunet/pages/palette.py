"""The colours and line styles of labels and errors on all pages, panels and figures.

All differ by at least 25 (CIEDE2000), also as people with protanopia, deuteranopia or tritanopia see them
(Machado, Oliveira and Fernandes, 2009). Red is reserved for problems.
"""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = ("#ffff40", "#40bf99", "#e699ff", "#994099", "#407300")
# Of outlines: drawn and skipped pixels; (1, 0) is a full line.
DASHES = ((1, 0), (6, 3), (2, 2), (9, 2), (4, 4))
FILL = 0.15  # opacity of a region inside its outline
FALSE_POSITIVE, FALSE_NEGATIVE, AGREEMENT = "#ffff40", "#e699ff", "#40bf99"


@dataclass(frozen=True)
class Line:
    """How the outline of a region is drawn."""

    colour: str
    dash: tuple[int, int]  # drawn and skipped pixels


def line_of(number: int) -> Line:
    """The style of a region by its place, from 0: the first 25 all differ in colour or line style."""
    return Line(COLOURS[number % len(COLOURS)], DASHES[(number + number // len(COLOURS)) % len(DASHES)])


def rgb(colour: str) -> tuple[int, int, int]:
    """The parts of a colour such as "#56b4e9", 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
