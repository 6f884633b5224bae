"""Training curves: a thin line for each fold, a bold line for their mean or for a single fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.pages.markup import text_of
from factorizer_nnunet.report.charts.axes import Figure, Scale, model_class, scale_for

_MOST_POINTS = 250  # per line; more would not be visible


@dataclass(frozen=True)
class Line:
    """The curve of one fold of a model."""

    title: str
    place: int
    fold: str
    epochs: np.ndarray
    values: np.ndarray  # NaN if missing


def curves_svg(quantity: str, lines: Sequence[Line], within: tuple[float, float] | None = None) -> str:
    """A plot of a quantity over epochs, for all folds and models; ``within`` is the range of possible values."""
    figure = Figure(width=400, height=240, top=14)
    finite = np.concatenate([line.values for line in lines])
    finite = finite[np.isfinite(finite)]
    y = scale_for(finite, figure.base, figure.top, within=within)
    last = max(int(line.epochs.max()) for line in lines) + 1
    x = Scale(0, max(last, 1), figure.left, figure.edge, integer=True)
    figure.y_axis(y, "")
    figure.x_axis(x, "epoch")
    texts = []
    for place in dict.fromkeys(line.place for line in lines):
        own = [line for line in lines if line.place == place]
        for line in own:
            tip = f"{line.title}, fold {line.fold}"
            kind = "fold" if len(own) > 1 else "mean"
            figure.add(
                f'<path class="{kind} {model_class(place)}" d="{_path(x, y, line.epochs, line.values)}">'
                f"<title>{text_of(tip)}</title></path>"
            )
        epochs = np.unique(np.concatenate([line.epochs for line in own]))  # logs of a continued training may be lost
        rows = np.full((len(own), epochs.size), np.nan)
        for row, line in zip(rows, own, strict=True):
            row[np.searchsorted(epochs, line.epochs)] = line.values
        # The mean ends where the first fold ends; the mean of the others would jump.
        mean = rows.mean(axis=0)
        if len(own) > 1:
            figure.add(f'<path class="mean {model_class(place)}" d="{_path(x, y, epochs, mean)}"/>')
        ends = [line.values[np.isfinite(line.values)][-1] for line in own if np.isfinite(line.values).any()]
        if ends:
            texts.append(f"{own[0].title}: {count_of(len(own), 'fold')}, {np.mean(ends):.3f} on average at the end.")
    return figure.svg(f"{quantity} over epochs. {' '.join(texts)}")


def _path(x: Scale, y: Scale, epochs: np.ndarray, values: np.ndarray) -> str:
    """An SVG path through the values; neighbouring values are averaged if there are too many."""
    step = -(-values.size // _MOST_POINTS)
    points, pen = [], "M"
    for start in range(0, values.size, step):
        some = values[start : start + step]
        some = some[np.isfinite(some)]
        if not some.size:
            pen = "M"
            continue
        # Values are those at the end of an epoch.
        points.append(f"{pen}{x(float(epochs[start : start + step].mean()) + 1):.1f} {y(float(some.mean())):.1f}")
        pen = "L"
    return "".join(points)
