"""Histograms of volumes as SVG in the page's colours, for light and dark screens and for paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 320, 130, 30, 18, 8
_BINS_PER_DECADE = 5


def decades_of(volumes_ml: Sequence[float]) -> tuple[int, int]:
    """Exponents of the powers of ten around all non-zero volumes; (0, 1), for 1 to 10 ml, if there are none."""
    logs = [math.log10(volume) for volume in volumes_ml if volume > 0]
    if not logs:
        return (0, 1)
    first = math.floor(min(logs))
    return (first, max(math.floor(max(logs)) + 1, first + 1))


def counts_of(volumes_ml: Sequence[float], decades: tuple[int, int]) -> list[int]:
    """Number of volumes in each bin, five bins per decade; volumes of 0 are not counted."""
    counts = [0] * ((decades[1] - decades[0]) * _BINS_PER_DECADE)
    for volume in volumes_ml:
        if volume > 0:
            number = math.floor((math.log10(volume) - decades[0]) * _BINS_PER_DECADE)
            counts[min(max(number, 0), len(counts) - 1)] += 1  # rounding can move an edge outside
    return counts


def histogram_svg(volumes_ml: Sequence[float], decades: tuple[int, int], colour: str) -> str:
    """SVG element with bars over a logarithmic axis of volume in ml.

    Args:
        volumes_ml: volumes of 0 are not drawn.
        decades: exponents of the powers of ten at both ends of the axis, equal for charts that are compared.
        colour: of the bars, such as "#56b4e9".
    """
    counts = counts_of(volumes_ml, decades)
    top = max(max(counts), 1)
    inner_width, inner_height = _WIDTH - _LEFT - 8, _HEIGHT - _BOTTOM - _TOP
    base = _TOP + inner_height
    width = inner_width / len(counts)
    parts = [f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + inner_width}" y1="{base}" y2="{base}"/>']
    for value in sorted({0, top}):
        y = base - inner_height * value / top
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{value}</text>')
    for number, count in enumerate(counts):
        if not count:
            continue
        height = inner_height * count / top
        low, high = (10 ** (decades[0] + edge / _BINS_PER_DECADE) for edge in (number, number + 1))
        parts.append(
            f'<rect x="{_LEFT + number * width + 0.5:.1f}" y="{base - height:.1f}" width="{max(width - 1, 0.5):.1f}" '
            f'height="{height:.1f}" fill="{colour}"><title>{low:.3g} to {high:.3g} ml: {count}</title></rect>'
        )
    for decade in range(decades[0], decades[1] + 1):
        x = _LEFT + (decade - decades[0]) * _BINS_PER_DECADE * width
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}"/>')
        unit = " ml" if decade == decades[1] else ""
        anchor = "end" if unit else "middle"
        end = x + 8 if unit else x
        parts.append(f'<text x="{end:.1f}" y="{_HEIGHT - 3}" text-anchor="{anchor}">{10.0**decade:g}{unit}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
