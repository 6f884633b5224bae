"""Panels for papers: the best component of each stage beside image and prediction, one PNG file per class."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from factorizer_nnunet.explain.case import Explanation
from factorizer_nnunet.explain.display import bytes_of, frame_of, fullest
from factorizer_nnunet.explain.page import COLOUR_MAP
from factorizer_nnunet.pages.markup import short
from factorizer_nnunet.pages.pictures import COLOURS
from factorizer_nnunet.pages.planes import intensity_range

# Name, axis across, axes to the right and down (left, back, up), and whether the last one runs upwards.
_PLANES = (("axial", 2, 0, 1, False), ("coronal", 1, 0, 2, True), ("sagittal", 0, 1, 2, True))


def write_panels(folder: Path, explanation: Explanation, top: int) -> None:
    """Write ``panel_CLASS.png`` for each class: a row for the image and one for each of the best components.

    Args:
        folder: to write into.
        explanation: assessed.
        top: components of each stage.
    """
    for name in explanation.classes:
        figure = _panel(explanation, name, top)
        FigureCanvasAgg(figure).print_png(folder / f"panel_{re.sub(r'[^A-Za-z0-9]+', '-', name)}.png")


def _panel(explanation: Explanation, name: str, top: int) -> Figure:
    frame = frame_of(explanation.space.grid)
    low, high = intensity_range(explanation.image[0])
    image = bytes_of(frame.show(explanation.image[0]), low, high)
    mask = np.isin(frame.show(explanation.prediction), explanation.classes[name])
    colour = COLOURS[list(explanation.classes).index(name) % len(COLOURS)]
    best = [one for stage in explanation.stages for one in explanation.top(stage, name, top)]
    planes = [plane for plane in _PLANES if min(frame.size[plane[2]], frame.size[plane[3]]) > 1]
    figure = Figure(figsize=(2.1 * len(planes) + 1.2, 1.9 * (len(best) + 1)), dpi=150, layout="constrained")
    grid = figure.subplots(len(best) + 1, len(planes), squeeze=False)
    cut = fullest(mask)
    for row, one in zip(grid, (None, *best), strict=True):
        values = None if one is None else frame.show(explanation.map(one.component).values)
        for axes, plane in zip(row, planes, strict=True):
            axes.imshow(_slice(image, plane, cut), cmap="gray", vmin=0, vmax=255)
            if values is not None:
                shown = _slice(values, plane, cut)
                strength = np.clip(shown / max(one.largest, 1e-12) * 1.6, 0, 1) * 0.8
                axes.imshow(shown, cmap=COLOUR_MAP, vmin=0, vmax=one.largest or 1.0, alpha=strength)
            outline = _slice(mask, plane, cut)
            if outline.any() and not outline.all():
                axes.contour(outline, levels=[0.5], colors=[colour], linewidths=1)
            axes.set_xticks([])
            axes.set_yticks([])
        if one is None:
            for axes, plane in zip(row, planes, strict=True):
                axes.set_title(plane[0], fontsize=8)
            label, unit = f"{name}\n(prediction)", "image intensity"
            colours = ScalarMappable(Normalize(low, high), "gray")
        else:
            separation = one.predicted[name]
            direction = " (avoids)" if separation.avoids else ""
            label = "\n".join((*one.component.name.split("_"), f"AUC {short(separation.auc)}{direction}"))
            unit = "feature norm"
            colours = ScalarMappable(Normalize(0, one.largest or 1.0), COLOUR_MAP)
        row[0].set_ylabel(label, fontsize=8)
        bar = figure.colorbar(colours, ax=list(row), fraction=0.05, pad=0.02)
        bar.set_label(unit, fontsize=7)
        bar.ax.tick_params(labelsize=7)
    return figure


def _slice(volume: np.ndarray, plane: tuple, cut: tuple[int, ...]) -> np.ndarray:
    """A slice of a volume (left, back, up) as it is shown, (rows, columns)."""
    _, across, columns, rows, up = plane
    flat = np.take(volume, cut[across], axis=across)
    flat = flat.T if columns < rows else flat
    return flat[::-1] if up else flat
