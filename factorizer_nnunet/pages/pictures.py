"""Slices with outlines of regions, as small JPEG files inside a page.

Each picture is a separate image, so that pages wrap at any width, can be printed, and describe every picture.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

# Outline colours of the regions, distinguishable on grey and for colour-blind people; red is reserved for problems.
COLOURS = ("#56b4e9", "#f0a30a", "#ff6fb5", "#3ccf8e", "#f4ec5a", "#b79cff")
_PIXELS_OF_A_PAGE = 12_000_000  # of all pictures together: about 5 MB
_SIDES = (48, 240)  # shortest and longest in pixels


def side_for(pictures: int) -> int:
    """Side length in pixels of each picture on a page with this many pictures."""
    return min(max(math.isqrt(_PIXELS_OF_A_PAGE // max(pictures, 1)), _SIDES[0]), _SIDES[1])


def data_uri(jpeg: bytes) -> str:
    """The address of a picture that is stored in the page itself."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def draw(
    image: np.ndarray, masks: Sequence[np.ndarray], side: int, colours: Sequence[str] = COLOURS, thickness: int = 1
) -> bytes:
    """A JPEG file with the outline of each mask in the next colour.

    Args:
        image: uint8 (rows, columns).
        masks: bool, of the same shape; later masks are drawn over earlier ones.
        side: length of the longer side in pixels.
        colours: such as "#56b4e9"; masks without a colour are not drawn.
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
    # Colours at full resolution, since outlines are thin. Optimised tables save a fifth of so small a file.
    Image.fromarray(pixels).save(file, "JPEG", quality=80, subsampling=0, optimize=True)
    return file.getvalue()


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """The pixels of a (rows, columns) mask that share an edge with its outside or with the picture's border.

    A larger ``thickness`` adds pixels further inside.
    """
    inside = mask
    for _ in range(thickness):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside
