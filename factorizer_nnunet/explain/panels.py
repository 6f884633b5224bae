"""Panels for papers: the best components of each stage below image and prediction, one PNG file per class."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from skimage.measure import find_contours

from factorizer_nnunet.explain.case import Assessment, Explanation
from factorizer_nnunet.explain.display import bytes_of, frame_of, fullest
from factorizer_nnunet.explain.page import COLOUR_MAP
from factorizer_nnunet.imaging.planes import PLANES, Plane, intensity_range
from factorizer_nnunet.pages.markup import short
from factorizer_nnunet.pages.pictures import COLOURS

# All in inches.
_CELL_WIDTH, _CELL_HEIGHT, _GAP = 2.1, 1.9, 0.06
_LOWEST_ROW, _NARROWEST_COLUMN = 0.75, 0.6  # hold a label of five lines, and a heading
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.35, 0.85, 0.25, 0.08
_BAR_WIDTH = 0.1


def write_panels(folder: Path, explanation: Explanation, top: int) -> None:
    """Write ``panel_CLASS.png`` for each class: a row for the image and one for each of the best components.

    Letters and digits of its name are kept; classes that are the same then get their number behind it.

    Args:
        folder: to write into.
        explanation: assessed.
        top: components of each stage.
    """
    words = [re.sub(r"[^A-Za-z0-9]+", "-", name) for name in explanation.classes]
    for number, (name, word) in enumerate(zip(explanation.classes, words, strict=True), start=1):
        figure = _panel(explanation, name, top)
        file = folder / f"panel_{word if words.count(word) == 1 else f'{word}-{number}'}.png"
        FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": 1})  # more would take as long as drawing


def _panel(explanation: Explanation, name: str, top: int) -> Figure:
    """All rows in one axes, measured in inches: laying many axes out takes matplotlib longer than drawing them."""
    frame = frame_of(explanation.space.grid)
    low, high = intensity_range(explanation.image[0])
    grey = np.repeat(bytes_of(frame.show(explanation.image[0]), low, high)[..., None] / 255, 3, axis=-1)
    mask = np.isin(frame.show(explanation.prediction), explanation.classes[name])
    cut = fullest(mask)
    best = [one for stage in explanation.stages for one in explanation.top(stage, name, top)]
    sides = frame.size
    planes = {heading: p for heading, p in PLANES.items() if min(sides[p.columns], sides[p.rows]) > 1}
    across = max(sides[plane.columns] for plane in planes.values())
    down = max(sides[plane.rows] for plane in planes.values())
    inch = min(_CELL_WIDTH / across, _CELL_HEIGHT / down)  # of a voxel
    row_height = max(down * inch, _LOWEST_ROW)
    widths = [max(sides[plane.columns] * inch, _NARROWEST_COLUMN) + _GAP for plane in planes.values()]
    lefts = _LEFT + np.cumsum([0.0, *widths])
    width, height = lefts[-1] + _BAR_WIDTH + _RIGHT, _TOP + (len(best) + 1) * (row_height + _GAP) + _BOTTOM
    figure = Figure(figsize=(width, height), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    lines = []
    for row, one in enumerate((None, *best)):
        middle = _TOP + row * (row_height + _GAP) + row_height / 2
        values = None if one is None else frame.show(explanation.map(one.component).values)
        for (heading, plane), left in zip(planes.items(), lefts, strict=False):
            picture = _slice(grey, plane, cut)
            if values is not None:
                picture = _laid_over(picture, _slice(values, plane, cut), one.largest)
            size = (picture.shape[1] * inch, picture.shape[0] * inch)
            corner = (left, middle - size[1] / 2)
            _show(axes, picture, corner, size)
            # Closed at the edges of the slice, and (rows, columns) of voxels' centres.
            outlines = find_contours(np.pad(_slice(mask, plane, cut), 1).astype(np.uint8), 0.5)
            lines += [corner + (outline[:, ::-1] - 0.5).clip(0, picture.shape[1::-1]) * inch for outline in outlines]
            if one is None:
                axes.text(left + size[0] / 2, _TOP / 2, heading, ha="center", va="center", fontsize=8)
        scale = (
            (low, high, "gray", "image intensity") if one is None else (0.0, one.largest, COLOUR_MAP, "feature norm")
        )
        _bar(axes, lefts[-1], middle, 0.9 * row_height, *scale)
        axes.text(_LEFT - 0.08, middle, _label(name, one, bool(mask.any())), ha="right", va="center", fontsize=8)
    colour = COLOURS[list(explanation.classes).index(name) % len(COLOURS)]
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=1), autolim=False)
    return figure


def _label(name: str, one: Assessment | None, predicted: bool) -> str:
    if one is None:
        return "\n".join((*textwrap.wrap(name, 18), "(prediction)" if predicted else "(not predicted)"))
    separation = one.predicted[name]
    return "\n".join(
        (*one.component.name.split("_"), f"AUC {short(separation.auc)}{' (avoids)' if separation.avoids else ''}")
    )


def _laid_over(picture: np.ndarray, values: np.ndarray, largest: float) -> np.ndarray:
    """A picture (rows, columns, RGB) with the values' colours over it, the stronger the larger they are."""
    relative = np.clip(values / max(largest, 1e-12), 0, 1)
    strength = np.clip(relative * 1.6, 0, 1)[..., None] * 0.8
    return picture * (1 - strength) + matplotlib.colormaps[COLOUR_MAP](relative)[..., :3] * strength


def _show(axes: Axes, picture: np.ndarray, corner: tuple[float, float], size: tuple[float, float]) -> None:
    """A picture (rows, columns, RGB) with its upper left corner where it is said."""
    extent = (corner[0], corner[0] + size[0], corner[1] + size[1], corner[1])
    axes.imshow(picture, extent=extent, aspect="auto", interpolation="nearest")


def _bar(
    axes: Axes, left: float, middle: float, height: float, low: float, high: float, colours: str, unit: str
) -> None:
    """A bar of the colours with its ends and its unit beside it."""
    strip = matplotlib.colormaps[colours](np.linspace(1, 0, 256))[:, None, :3]
    _show(axes, strip, (left, middle - height / 2), (_BAR_WIDTH, height))
    beside = left + _BAR_WIDTH + 0.05
    axes.text(beside, middle - height / 2, short(high), va="top", fontsize=7)
    axes.text(beside, middle + height / 2, short(low), va="bottom", fontsize=7)
    axes.text(beside, middle, unit.replace(" ", "\n"), va="center", fontsize=7)


def _slice(volume: np.ndarray, plane: Plane, cut: tuple[int, ...]) -> np.ndarray:
    """A slice of a volume (left, back, up, …) as it is shown, (rows, columns, …)."""
    flat = np.take(volume, cut[plane.across], axis=plane.across).swapaxes(0, 1)  # the later axis is that of the rows
    return flat[:: plane.rows_lead]
