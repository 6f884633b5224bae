"""Panels for papers: the best components of each layer below image and prediction, one PNG file per class."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from factorizer_nnunet.core.wording import short
from factorizer_nnunet.explain.explanation import Assessment, Explanation
from factorizer_nnunet.explain.heat import COLOUR_MAP
from factorizer_nnunet.explain.shown import Cut, Shown, cuts_of, heated_cut
from factorizer_nnunet.pages.figures import LEGEND_COLUMNS, add_legend
from factorizer_nnunet.pages.palette import FILL
from factorizer_nnunet.pages.pictures import annotated

# All in inches.
_CELL_WIDTH, _CELL_HEIGHT, _GAP = 2.1, 1.9, 0.06
_MIN_ROW, _MIN_COLUMN = 0.75, 0.6  # room for a label of five lines, and for a heading
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.35, 0.85, 0.35, 0.15
_BAR_WIDTH, _LEGEND_ROW = 0.1, 0.2
_DPI = 150


@dataclass(frozen=True)
class _Row:
    """One row of a panel: a picture (rows, columns, RGB) per plane, its label, and its colour bar."""

    pictures: list[np.ndarray]
    label: str
    low: float
    high: float
    colours: str
    unit: str


def write_panels(folder: Path, explanation: Explanation, top: int, shown: Shown) -> None:
    """Write ``panel_CLASS.png`` for each class: image, then each layer's ``top`` components over it.

    File names keep letters and digits of the class name; classes that become equal get a number.
    """
    words = [re.sub(r"[^A-Za-z0-9]+", "-", name) for name in explanation.classes]
    for number, (name, word) in enumerate(zip(explanation.classes, words, strict=True), start=1):
        figure = _panel(explanation, name, top, shown)
        file = folder / f"panel_{word if words.count(word) == 1 else f'{word}-{number}'}.png"
        FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": 1})  # more would take as long as drawing


def _panel(explanation: Explanation, name: str, top: int, shown: Shown) -> Figure:
    """All rows in one axes, measured in inches: laying out many axes takes matplotlib longer than drawing them."""
    cuts = cuts_of(explanation, shown, np.isin(explanation.prediction, explanation.classes[name]))
    best = [one for layer in explanation.layers for one in explanation.top(layer, name, top)]
    height_mm, width_mm = np.max([cut.extent_mm for cut in cuts], axis=0)
    inch = min(_CELL_WIDTH / width_mm, _CELL_HEIGHT / height_mm)  # of a mm
    row_height = max(height_mm * inch, _MIN_ROW)
    widths = [max(cut.extent_mm[1] * inch, _MIN_COLUMN) + _GAP for cut in cuts]
    lefts = _LEFT + np.cumsum([0.0, *widths])
    outlined = _outlined(explanation, name, cuts)
    bottom = _BOTTOM + math.ceil(len(outlined) / LEGEND_COLUMNS) * _LEGEND_ROW
    width, height = lefts[-1] + _BAR_WIDTH + _RIGHT, _TOP + (len(best) + 1) * (row_height + _GAP) + bottom
    figure = Figure(figsize=(width, height), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for cut, left in zip(cuts, lefts, strict=False):
        middle = left + cut.extent_mm[1] * inch / 2
        axes.text(middle, _TOP / 2, cut.name.replace(", ", "\n"), ha="center", va="center", fontsize=7)
    for number, row in enumerate(_rows(explanation, name, best, cuts, shown, inch)):
        middle = _TOP + number * (row_height + _GAP) + row_height / 2
        for cut, picture, left in zip(cuts, row.pictures, lefts, strict=False):
            rows_mm, columns_mm = cut.extent_mm
            _show(axes, picture, (left, middle - rows_mm * inch / 2), (columns_mm * inch, rows_mm * inch))
        _colour_bar(axes, lefts[-1], middle, 0.9 * row_height, row)
        axes.text(_LEFT - 0.08, middle, row.label, ha="right", va="center", fontsize=8)
    add_legend(figure, outlined, 7)
    return figure


def _outlined(explanation: Explanation, name: str, cuts: list[Cut]) -> dict[int, str]:
    """The places and names of a class and of the others in its slices."""
    return {
        place: other
        for place, other in enumerate(explanation.classes)
        if other == name or any(cut.masks[place].any() for cut in cuts)
    }


def _rows(
    explanation: Explanation, name: str, best: list[Assessment], cuts: list[Cut], shown: Shown, inch: float
) -> Iterator[_Row]:
    """The image with all classes, then the image below each component's map, with this class alone."""
    place = list(explanation.classes).index(name)
    is_predicted = any(cut.masks[place].any() for cut in cuts)
    title = "\n".join((*textwrap.wrap(name, 18), "(prediction)" if is_predicted else "(not predicted)"))
    pictures = [_annotated(cut, cut.grey, cut.masks, inch) for cut in cuts]
    yield _Row(pictures, title, *shown.image.window.ends, "gray", shown.image.name)
    for one in best:
        separation = one.predicted[name]
        auc = f"AUC {short(separation.auc)}{' (avoids)' if separation.avoids else ''}"
        values = explanation.map(one.component).values
        pictures = []
        for cut in cuts:
            alone = [mask & (number == place) for number, mask in enumerate(cut.masks)]
            pictures.append(_annotated(cut, heated_cut(explanation, cut, values, one.largest), alone, inch))
        label = "\n".join((*one.component.name.split("_"), auc))
        yield _Row(pictures, label, 0.0, one.largest, COLOUR_MAP, "feature norm")


def _annotated(cut: Cut, picture: np.ndarray, masks: list[np.ndarray], inch: float) -> np.ndarray:
    """A picture of a slice in the pixels of the figure; ``inch`` is the length of a mm."""
    fill = FILL if picture.ndim == 2 else 0  # colours of a map have a meaning
    side = max(round(max(cut.extent_mm) * inch * _DPI), 1)
    return annotated(picture, masks, side, 2, cut.known_plane, cut.position, fill)


def _show(axes: Axes, picture: np.ndarray, corner: tuple[float, float], size: tuple[float, float]) -> None:
    """Draw a picture (rows, columns, RGB) with its upper left corner at ``corner``."""
    extent = (corner[0], corner[0] + size[0], corner[1] + size[1], corner[1])
    axes.imshow(picture, extent=extent, aspect="auto", interpolation="antialiased")


def _colour_bar(axes: Axes, left: float, middle: float, height: float, row: _Row) -> None:
    """Draw a row's colours with their range and unit."""
    strip = matplotlib.colormaps[row.colours](np.linspace(1, 0, 256))[:, None, :3]
    _show(axes, strip, (left, middle - height / 2), (_BAR_WIDTH, height))
    right = left + _BAR_WIDTH + 0.05
    axes.text(right, middle - height / 2, short(row.high), va="top", fontsize=7)
    axes.text(right, middle + height / 2, short(row.low), va="bottom", fontsize=7)
    axes.text(right, middle, row.unit.replace(" ", "\n"), va="center", fontsize=7)
