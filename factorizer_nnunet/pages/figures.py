"""What figures of matplotlib share with the pages: the legend of regions."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from factorizer_nnunet.pages.palette import line_of

LEGEND_COLUMNS = 4


def add_legend(figure: Figure, regions: Mapping[int, str], fontsize: float) -> None:
    """Name the outlines of regions, by their places, below a figure; on black as in the pictures."""
    handles = []
    for number, name in regions.items():
        line = line_of(number)
        handle = Line2D([], [], color=line.colour, label=name)
        if line.dash[1]:
            handle.set_dashes(line.dash)
        handles.append(handle)
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=min(len(handles), LEGEND_COLUMNS),
        fontsize=fontsize,
        facecolor="black",
        labelcolor="white",
        framealpha=1,
        handlelength=2.5,
    )
