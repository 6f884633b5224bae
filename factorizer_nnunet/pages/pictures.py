"""Slices with outlines of regions, as small JPEG files inside a page.

Each picture is a separate image, so that pages wrap at any width, can be printed, and describe every picture.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from factorizer_nnunet.imaging.planes import Plane
from factorizer_nnunet.pages.palette import COLOURS, DASHES, FILL, rgb

_PIXELS_OF_A_PAGE = 12_000_000  # of all pictures together: about 5 MB
_SIDES = (48, 240)  # shortest and longest in pixels


def side_for(pictures: int) -> int:
    """Side length in pixels of each picture on a page with this many pictures."""
    return min(max(math.isqrt(_PIXELS_OF_A_PAGE // max(pictures, 1)), _SIDES[0]), _SIDES[1])


def data_uri(jpeg: bytes) -> str:
    """The address of a picture that is stored in the page itself."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def draw(
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    side: int,
    colours: Sequence[str] = COLOURS,
    thickness: int = 1,
    plane: Plane | None = None,
    corner: str = "",
) -> bytes:
    """A JPEG file with the outline and a light fill of each mask in the next colour, each with its own line style.

    Args:
        image: uint8 (rows, columns).
        masks: bool, of the same shape; larger ones first, since later masks are drawn over earlier ones.
        side: length of the longer side in pixels.
        colours: of `COLOURS`; masks without a colour are not drawn.
        thickness: of the outlines in pixels.
        plane: whose side letters are drawn at the edges; None if the image has no known orientation.
        corner: text in the upper left corner, such as the position; left out where it does not fit.
    """
    rows, columns = image.shape
    scale = side / max(rows, columns)
    size = (max(round(columns * scale), 1), max(round(rows * scale), 1))
    grey = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS)
    pixels = np.asarray(grey.convert("RGB")).copy()
    for mask, colour in zip(masks, colours, strict=False):
        enlarged = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)) > 0
        pixels[enlarged] = np.rint((1 - FILL) * pixels[enlarged] + FILL * np.array(rgb(colour))).astype(np.uint8)
        pixels[outline(enlarged, thickness) & _dashes(enlarged.shape, colour)] = rgb(colour)
    shown = Image.fromarray(pixels)
    if plane is not None or corner:
        _write_on(shown, plane, corner)
    file = io.BytesIO()
    # Colours at full resolution, since outlines are thin. Optimised tables save a fifth of so small a file.
    shown.save(file, "JPEG", quality=80, subsampling=0, optimize=True)
    return file.getvalue()


def _dashes(shape: tuple[int, ...], colour: str) -> np.ndarray:
    """Where the outline in a colour is drawn: stripes along the diagonal, which cross lines of any direction."""
    drawn, skipped = DASHES[COLOURS.index(colour)] if colour in COLOURS else (1, 0)
    return (np.indices(shape).sum(axis=0) % (drawn + skipped)) < drawn


def _write_on(picture: Image.Image, plane: Plane | None, corner: str) -> None:
    """Write the side letters in the middle of the edges, and a text in the upper left corner, if there is room."""
    width, height = picture.size
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(max(8, max(width, height) // 18))
    style: dict[str, Any] = {"fill": "#ffffff", "stroke_fill": "#000000", "stroke_width": 1, "font": font}
    if plane is not None:
        left, right, top, bottom = plane.sides
        pen.text((2, height / 2), left, anchor="lm", **style)
        pen.text((width - 2, height / 2), right, anchor="rm", **style)
        pen.text((width / 2, 2), top, anchor="mt", **style)
        pen.text((width / 2, height - 2), bottom, anchor="mb", **style)
    if corner and pen.textlength(corner, font) < width / 2 - 8:
        pen.text((2, 2), corner, anchor="lt", **style)


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """The pixels of a (rows, columns) mask that share an edge with its outside or with the picture's border.

    A larger ``thickness`` adds pixels further inside.
    """
    inside = mask
    for _ in range(thickness):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside
