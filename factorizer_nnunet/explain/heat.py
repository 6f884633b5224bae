"""The colours of maps over an image, the same on pages, in their viewer and on panels."""

from __future__ import annotations

import matplotlib
import numpy as np

COLOUR_MAP = "inferno"
COLOURS = (matplotlib.colormaps[COLOUR_MAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8)  # (256, RGB)
_OPACITY = 0.7  # of high values; the viewer starts with the same
_OPAQUE = 160  # value from 0 to 255 that has this opacity; lower ones have less


def heated(grey: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A picture (rows, columns) under the colours of values of the same shape, all uint8; (rows, columns, RGB)."""
    opacity = np.minimum(values / _OPAQUE, 1)[..., None] * _OPACITY
    return np.rint(grey[..., None] * (1 - opacity) + COLOURS[values] * opacity).astype(np.uint8)
