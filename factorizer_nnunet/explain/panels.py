"""Panels for papers: the best components of each layer below image and prediction, one PNG file per class."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from skimage.measure import find_contours

from factorizer_nnunet.explain.explanation import Assessment, Explanation
from factorizer_nnunet.explain.page_data import COLOUR_MAP
from factorizer_nnunet.imaging.channels import display_channel
from factorizer_nnunet.imaging.display_grid import display_grid, largest_slices, to_uint8
from factorizer_nnunet.imaging.planes import PLANES, Plane, slice_position
from factorizer_nnunet.imaging.window import Window, window_of
from factorizer_nnunet.pages.markup import short
from factorizer_nnunet.pages.palette import COLOURS

# All in inches.
_CELL_WIDTH, _CELL_HEIGHT, _GAP = 2.1, 1.9, 0.06
_MIN_ROW, _MIN_COLUMN = 0.75, 0.6  # room for a label of five lines, and for a heading
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.35, 0.85, 0.35, 0.08
_BAR_WIDTH = 0.1


@dataclass(frozen=True)
class _Row:
    """One row of a panel: a picture (rows, columns, RGB) per plane, its label, and its colour bar."""

    pictures: list[np.ndarray]
    label: str
    low: float
    high: float
    colours: str
    unit: str


@dataclass(frozen=True)
class _Background:
    """The image below the maps."""

    channel: int
    name: str
    window: Window

    @classmethod
    def of(cls, explanation: Explanation, channels: Sequence[str], shown: int | None) -> _Background:
        labelled = explanation.prediction > 0
        channel = display_channel([*explanation.image], labelled) if shown is None else shown
        name = channels[channel] if channel < len(channels) else f"channel {channel}"
        return cls(channel, name, window_of(explanation.image[channel], name, labelled))


def write_panels(
    folder: Path, explanation: Explanation, top: int, channels: Sequence[str] = (), shown: int | None = None
) -> None:
    """Write ``panel_CLASS.png`` for each class: image, then each layer's ``top`` components.

    ``channels`` are names; ``shown`` is the channel below the maps, counted from 0: None chooses the one with the
    largest contrast of the prediction. File names keep letters and digits of the class name; classes that become equal
    get a number.
    """
    background = _Background.of(explanation, channels, shown)
    words = [re.sub(r"[^A-Za-z0-9]+", "-", name) for name in explanation.classes]
    for number, (name, word) in enumerate(zip(explanation.classes, words, strict=True), start=1):
        figure = _panel(explanation, name, top, background)
        file = folder / f"panel_{word if words.count(word) == 1 else f'{word}-{number}'}.png"
        FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": 1})  # more would take as long as drawing


def _panel(explanation: Explanation, name: str, top: int, background: _Background) -> Figure:
    """All rows in one axes, measured in inches: laying out many axes takes matplotlib longer than drawing them."""
    grid = display_grid(explanation.geometry.grid)
    mask = np.isin(grid.resample(explanation.prediction), explanation.classes[name])
    cut = largest_slices(mask)
    best = [one for layer in explanation.layers for one in explanation.top(layer, name, top)]
    planes = {title: p for title, p in PLANES.items() if min(grid.size[p.columns], grid.size[p.rows]) > 1}
    across = max(grid.size[plane.columns] for plane in planes.values())
    down = max(grid.size[plane.rows] for plane in planes.values())
    inch = min(_CELL_WIDTH / across, _CELL_HEIGHT / down)  # side of a voxel
    row_height = max(down * inch, _MIN_ROW)
    widths = [max(grid.size[plane.columns] * inch, _MIN_COLUMN) + _GAP for plane in planes.values()]
    lefts = _LEFT + np.cumsum([0.0, *widths])
    width, height = lefts[-1] + _BAR_WIDTH + _RIGHT, _TOP + (len(best) + 1) * (row_height + _GAP) + _BOTTOM
    figure = Figure(figsize=(width, height), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    outlines = []
    slices = dict(zip(planes, _positions(explanation, planes, cut), strict=True))
    for (title, plane), left in zip(planes.items(), lefts, strict=False):
        axes.text(
            left + grid.size[plane.columns] * inch / 2, _TOP / 2, slices[title], ha="center", va="center", fontsize=7
        )
    for number, row in enumerate(_rows(explanation, name, best, mask, list(planes.values()), background)):
        middle = _TOP + number * (row_height + _GAP) + row_height / 2
        for plane, picture, left in zip(planes.values(), row.pictures, lefts, strict=False):
            size = (picture.shape[1] * inch, picture.shape[0] * inch)
            corner = (left, middle - size[1] / 2)
            _show(axes, picture, corner, size)
            _write_sides(axes, plane, corner, size)
            # Closed at the edges of the slice; points are (row, column) of voxels' centres.
            for outline in find_contours(np.pad(_slice(mask, plane, cut), 1).astype(np.uint8), 0.5):
                outlines.append(corner + (outline[:, ::-1] - 0.5).clip(0, picture.shape[1::-1]) * inch)
        _colour_bar(axes, lefts[-1], middle, 0.9 * row_height, row)
        axes.text(_LEFT - 0.08, middle, row.label, ha="right", va="center", fontsize=8)
    colour = COLOURS[list(explanation.classes).index(name) % len(COLOURS)]
    axes.add_collection(LineCollection(outlines, colors=colour, linewidths=1), autolim=False)
    return figure


def _rows(
    explanation: Explanation,
    name: str,
    best: list[Assessment],
    mask: np.ndarray,
    planes: list[Plane],
    background: _Background,
) -> Iterator[_Row]:
    """The image, then the image below each component's map."""
    grid, cut = display_grid(explanation.geometry.grid), largest_slices(mask)
    window = background.window
    volume = to_uint8(grid.resample(explanation.image[background.channel]), window.low, window.high)
    grey = [np.repeat(_slice(volume, plane, cut)[..., None] / 255, 3, axis=-1) for plane in planes]
    title = "\n".join((*textwrap.wrap(name, 18), "(prediction)" if mask.any() else "(not predicted)"))
    yield _Row(grey, title, window.low, window.high, "gray", background.name)
    for one in best:
        separation = one.predicted[name]
        auc = f"AUC {short(separation.auc)}{' (avoids)' if separation.avoids else ''}"
        values = grid.resample(explanation.map(one.component).values)
        pictures = [
            _overlay(picture, _slice(values, plane, cut), one.largest)
            for picture, plane in zip(grey, planes, strict=True)
        ]
        label = "\n".join((*one.component.name.split("_"), auc))
        yield _Row(pictures, label, 0.0, one.largest, COLOUR_MAP, "feature norm")


def _overlay(grey: np.ndarray, values: np.ndarray, largest: float) -> np.ndarray:
    """A picture (rows, columns, RGB) under the colours of values (rows, columns), more opaque for larger values."""
    relative = np.clip(values / max(largest, 1e-12), 0, 1)
    opacity = np.clip(relative * 1.6, 0, 1)[..., None] * 0.8
    return grey * (1 - opacity) + matplotlib.colormaps[COLOUR_MAP](relative)[..., :3] * opacity


def _positions(explanation: Explanation, planes: Mapping[str, Plane], cut: tuple[int, ...]) -> Iterator[str]:
    """The name of each plane and where its slice lies, of the image's own slices: those of the display are of cubes."""
    grid, shown = explanation.geometry.grid, display_grid(explanation.geometry.grid)
    for title, plane in planes.items():
        yield f"{title}\n{slice_position(plane, grid, float(shown.indices[plane.across][cut[plane.across]]))}"


def _write_sides(axes: Axes, plane: Plane, corner: tuple[float, float], size: tuple[float, float]) -> None:
    """The letters of the patient's sides, at the middle of the edges of a picture."""
    (x, y), (width, height) = corner, size
    places = (
        (x, y + height / 2, "left", "center"),
        (x + width, y + height / 2, "right", "center"),
        (x + width / 2, y, "center", "top"),
        (x + width / 2, y + height, "center", "bottom"),
    )
    for letter, (across, down, horizontal, vertical) in zip(plane.sides, places, strict=True):
        axes.text(across, down, letter, color="white", fontsize=6, ha=horizontal, va=vertical)


def _show(axes: Axes, picture: np.ndarray, corner: tuple[float, float], size: tuple[float, float]) -> None:
    """Draw a picture (rows, columns, RGB) with its upper left corner at ``corner``."""
    extent = (corner[0], corner[0] + size[0], corner[1] + size[1], corner[1])
    axes.imshow(picture, extent=extent, aspect="auto", interpolation="nearest")


def _colour_bar(axes: Axes, left: float, middle: float, height: float, row: _Row) -> None:
    """Draw a row's colours with their range and unit."""
    strip = matplotlib.colormaps[row.colours](np.linspace(1, 0, 256))[:, None, :3]
    _show(axes, strip, (left, middle - height / 2), (_BAR_WIDTH, height))
    right = left + _BAR_WIDTH + 0.05
    axes.text(right, middle - height / 2, short(row.high), va="top", fontsize=7)
    axes.text(right, middle + height / 2, short(row.low), va="bottom", fontsize=7)
    axes.text(right, middle, row.unit.replace(" ", "\n"), va="center", fontsize=7)


def _slice(volume: np.ndarray, plane: Plane, cut: tuple[int, ...]) -> np.ndarray:
    """A slice of a volume (left, back, up, …) as it is shown, (rows, columns, …)."""
    flat = np.take(volume, cut[plane.across], axis=plane.across).swapaxes(0, 1)  # the later axis is that of the rows
    return flat[:: plane.rows_lead]
