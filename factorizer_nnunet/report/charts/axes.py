"""Scales, ticks and axes of figures: SVG in the page's colours, so that it suits light and dark mode and print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from matplotlib.ticker import LogLocator, MaxNLocator

from factorizer_nnunet.pages.markup import text_of

MODEL_COLOURS = 6  # classes m0 to m5 of the page's style; further models reuse them


@dataclass(frozen=True)
class Scale:
    """Map values to positions along an axis, linear or logarithmic; `start` is the position of `low`.

    With `integer`, ticks are integers, as for epochs.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    integer: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value; values outside the scale, also infinite ones, are placed at its end."""
        value = min(max(value, self.low), self.high)
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers within the scale."""
        steps = [1.0] if self.high >= 1000 * self.low else [1.0, 2.0, 5.0]  # of a decade
        linear = MaxNLocator(count, steps=[1, 2, 5, 10] if self.integer else [1, 2, 2.5, 5, 10], integer=self.integer)
        locator = LogLocator(subs=steps) if self.log else linear
        slack = 1e-9 * (self.high - self.low)
        return [
            float(v) for v in locator.tick_values(self.low, self.high) if self.low - slack <= v <= self.high + slack
        ]


def scale_for(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    include: Sequence[float] = (),
    within: tuple[float, float] | None = None,
) -> Scale:
    """A linear scale that contains all finite values and those of ``include`` and ends at round numbers.

    ``within`` is the range of possible values, such as 0 to 1 for Dice; the scale does not exceed it.
    """
    finite = [float(v) for v in (*values, *include) if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    edges = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    low, high = float(edges[0]), float(edges[-1])
    if within is not None:
        low, high = max(low, within[0]), min(high, within[1])
        low, high = (low, high) if high > low else within
    return Scale(low, high, start, end)


def log_scale_for(values: Iterable[float], start: float, end: float) -> Scale:
    """A logarithmic scale that contains all positive values and ends at 1, 2 or 5 times a power of ten."""
    positive = [v for v in values if v > 0 and math.isfinite(v)] or [1.0, 10.0]
    round_numbers = [
        step * 10.0**decade
        for decade in range(math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive))) + 1)
        for step in (1, 2, 5)
    ]
    low = max(v for v in round_numbers if v <= min(positive) * (1 + 1e-9))
    high = min(v for v in round_numbers if v > low and v >= max(positive) * (1 - 1e-9))
    return Scale(low, high, start, end, log=True)


@dataclass
class Figure:
    """An SVG being drawn; coordinates are pixels of its width and height."""

    width: int
    height: int
    left: int = 46
    right: int = 12
    top: int = 12
    bottom: int = 38
    parts: list[str] = field(default_factory=list)

    @property
    def base(self) -> int:
        """The lower end of the drawing area."""
        return self.height - self.bottom

    @property
    def edge(self) -> int:
        """The right end of the drawing area."""
        return self.width - self.right

    def add(self, part: str) -> None:
        """Add an SVG element on top."""
        self.parts.append(part)

    def text(self, x: float, y: float, content: object, anchor: str = "middle", kind: str = "") -> None:
        """Write text, which is escaped; ``kind`` is a class of the style."""
        style = f' class="{kind}"' if kind else ""
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{text_of(content)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """Draw a straight line."""
        self.add(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def y_axis(self, scale: Scale, title: str) -> None:
        """Grid lines with numbers, and the title above."""
        for value in scale.ticks():
            y = scale(value)
            self.line(self.left, y, self.edge, y, "grid")
            self.text(self.left - 6, y + 3.5, shown(value), "end")
        self.text(4, 10, title, "start", "title")

    def x_axis(self, scale: Scale, title: str) -> None:
        """The line at the bottom with numbers and the title."""
        self.line(self.left, self.base, self.edge, self.base, "axis")
        for value in scale.ticks(6):
            x = scale(value)
            self.line(x, self.base, x, self.base + 4, "axis")
            self.text(x, self.base + 15, shown(value))
        self.text((self.left + self.edge) / 2, self.height - 4, title, kind="title")

    def svg(self, description: str) -> str:
        """The element, with a description for screen readers. Arrow keys move through its marks."""
        size, label = f"0 0 {self.width} {self.height}", text_of(description)
        return f'<svg viewBox="{size}" role="img" tabindex="0" aria-label="{label}">{"".join(self.parts)}</svg>'


def shown(value: float) -> str:
    """A number on an axis, with a minus sign instead of a hyphen."""
    return f"{value:.6g}".replace("-", "−")


def model_class(place: int) -> str:
    """The class of the style that gives a model its colour."""
    return f"m{place % MODEL_COLOURS}"


def model_heads(models: Iterable[tuple[str, int]]) -> str:
    """Table heads, as HTML, of models given by title and place."""
    return "".join(
        f'<th scope="col"><i class="key {model_class(place)}"></i>{text_of(title)}</th>' for title, place in models
    )


def mark(x: float, y: float, place: int, case: int | None, tip: str, kind: str = "d", radius: float = 2.6) -> str:
    """A dot that can be pointed at: ``tip`` is shown below the name of ``case``, its index in the page's list."""
    number = "" if case is None else f' data-c="{case}"'
    return (
        f'<circle class="{kind} {model_class(place)}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"{number} '
        f'data-t="{text_of(tip)}"/>'
    )
