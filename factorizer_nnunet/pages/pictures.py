"""Slices with outlines drawn in as small JPEG files within a page.

Each picture is a file of its own, so that a page of them wraps to any width, prints, and names every one.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

# Outline of each region, told apart by colour-blind people and on grey; red is kept for what is wrong.
COLOURS = ("#56b4e9", "#f0a30a", "#ff6fb5", "#3ccf8e", "#f4ec5a", "#b79cff")
_PIXELS_OF_A_PAGE = 12_000_000  # of all pictures together: some 5 MB
_SIDES = (48, 240)  # shortest and longest in pixels


def side_for(pictures: int) -> int:
    """Side in pixels of each of so many pictures of one page."""
    return min(max(math.isqrt(_PIXELS_OF_A_PAGE // max(pictures, 1)), _SIDES[0]), _SIDES[1])


def data_uri(jpeg: bytes) -> str:
    """Return a picture as the address of an image that needs no file."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def draw(
    image: np.ndarray, masks: Sequence[np.ndarray], side: int, colours: Sequence[str] = COLOURS, thickness: int = 1
) -> bytes:
    """A JPEG file, its longer side ``side`` pixels, with the outline of each mask in the next colour.

    Args:
        image: uint8 (rows, columns).
        masks: bool, of the same shape, larger regions first: smaller ones are drawn over them.
        side: of the picture.
        colours: such as "#56b4e9", at least one for each mask to be drawn.
        thickness: of the outlines in pixels.
    """
    rows, columns = image.shape
    scale = side / max(rows, columns)
    size = (max(round(columns * scale), 1), max(round(rows * scale), 1))
    grey = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS)
    pixels = np.asarray(grey.convert("RGB")).copy()
    for mask, colour in zip(masks, colours, strict=False):
        enlarged = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
        pixels[outline(np.asarray(enlarged) > 0, thickness)] = [
            int(colour[start : start + 2], 16) for start in (1, 3, 5)
        ]
    file = io.BytesIO()
    # Colours at full resolution: outlines are thin. Optimised tables save a fifth of so small a file.
    Image.fromarray(pixels).save(file, "JPEG", quality=80, subsampling=0, optimize=True)
    return file.getvalue()


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """The pixels of a (rows, columns) mask that touch its outside, over an edge, or the border of the picture.

    A larger ``thickness`` takes the next ones inwards, too.
    """
    inside = mask
    for _ in range(thickness):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside
