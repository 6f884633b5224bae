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
from factorizer_nnunet.pages.palette import FILL, line_of, rgb

_PIXELS_OF_A_PAGE = 12_000_000  # of all pictures together: about 5 MB
_SIDES = (48, 240)  # shortest and longest in pixels
_SHARED = 3  # pixels of each colour where two outlines coincide


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
    thickness: int = 1,
    plane: Plane | None = None,
    position: str = "",
    fill: float = FILL,
) -> bytes:
    """A JPEG file of a slice with the outlines of regions; arguments as for `annotated`."""
    file = io.BytesIO()
    # Colours at full resolution, since outlines are thin. Optimised tables save a fifth of so small a file.
    shown = annotated(image, masks, side, thickness, plane, position, fill)
    Image.fromarray(shown).save(file, "JPEG", quality=80, subsampling=0, optimize=True)
    return file.getvalue()


def annotated(
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    side: int,
    thickness: int = 1,
    plane: Plane | None = None,
    position: str = "",
    fill: float = FILL,
) -> np.ndarray:
    """An enlarged slice with the outlines of regions, plane, position and side letters; uint8 (rows, columns, RGB).

    Args:
        image: uint8 (rows, columns), or (rows, columns, RGB).
        masks: bool (rows, columns), one for each region, in the order of `line_of`.
        side: length of the longer side in pixels.
        thickness: of the outlines in pixels.
        plane: whose name is written in the corner and whose side letters are drawn at the edges; None if the image has
            no known orientation.
        position: of the slice, such as "S 34.2 mm", below the name of the plane.
        fill: opacity of a region's colour inside its outline; 0 where colours have another meaning.
    """
    rows, columns = image.shape[:2]
    scale = side / max(rows, columns)
    size = (max(round(columns * scale), 1), max(round(rows * scale), 1))
    enlarged = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS)
    pixels = np.asarray(enlarged.convert("RGB")).copy()
    _outline_regions(pixels, masks, thickness, fill)
    if plane is None:
        return pixels
    shown = Image.fromarray(pixels)
    _write_on(shown, plane, position)
    return np.asarray(shown)


def _outline_regions(pixels: np.ndarray, masks: Sequence[np.ndarray], thickness: int, fill: float) -> None:
    """Draw an outline and a light fill of each region into an enlarged picture, (rows, columns, RGB).

    Larger regions come first, so that smaller ones stay visible inside them; where outlines coincide, both colours
    alternate.
    """
    diagonal = np.indices(pixels.shape[:2]).sum(axis=0)  # stripes along it cross lines of any direction
    taken = np.zeros(pixels.shape[:2], bool)
    areas = {number: int(mask.sum()) for number, mask in enumerate(masks) if mask.any()}
    for number in sorted(areas, key=lambda number: -areas[number]):
        line = line_of(number)
        mask = Image.fromarray(masks[number].astype(np.uint8) * 255)
        inside = np.asarray(mask.resize(pixels.shape[1::-1], Image.Resampling.NEAREST)) > 0
        colour, filled = np.array(rgb(line.colour)), inside & ~taken
        pixels[filled] = np.rint((1 - fill) * pixels[filled] + fill * colour).astype(np.uint8)
        drawn = outline(inside, thickness) & (diagonal % sum(line.dash) < line.dash[0])
        drawn &= ~taken | (diagonal % (2 * _SHARED) < _SHARED)
        pixels[drawn] = colour
        taken |= drawn


def _write_on(picture: Image.Image, plane: Plane, position: str) -> None:
    """Write the side letters in the middle of the edges, and plane and position in the upper left corner."""
    width, height = picture.size
    height_of_text = max(8, max(width, height) // 15)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(height_of_text)
    style: dict[str, Any] = {"fill": "#ffffff", "stroke_fill": "#000000", "stroke_width": 1, "font": font}
    left, right, top, bottom = plane.sides
    pen.text((2, height / 2), left, anchor="lm", **style)
    pen.text((width - 2, height / 2), right, anchor="rm", **style)
    pen.text((width / 2, 2), top, anchor="mt", **style)
    pen.text((width / 2, height - 2), bottom, anchor="mb", **style)
    first = 0 if pen.textlength(plane.name, font) < width / 2 - height_of_text else 1  # below the upper letter
    for line, text in enumerate((plane.name, position), start=first):
        pen.text((2, 2 + line * height_of_text), text, anchor="lt", **style)


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """The pixels of a (rows, columns) mask that share an edge with its outside or with the picture's border.

    A larger ``thickness`` adds pixels further inside.
    """
    inside = mask
    for _ in range(thickness):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside
