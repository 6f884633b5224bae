"""What is drawn on the pictures of pages, panels and figures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from factorizer_nnunet.imaging.planes import PLANES
from factorizer_nnunet.pages.palette import line_of, rgb
from factorizer_nnunet.pages.pictures import annotated

GREY = np.full((40, 40), 90, np.uint8)


def _square(first: int, last: int) -> np.ndarray:
    mask = np.zeros((40, 40), bool)
    mask[first:last, first:last] = True
    return mask


def _drawn(pixels: np.ndarray, number: int) -> np.ndarray:
    """Where the outline of a region is."""
    return (pixels == rgb(line_of(number).colour)).all(axis=-1)


def test_nested_regions_stay_visible_in_any_order() -> None:
    masks = [_square(15, 22), _square(5, 35), _square(10, 30)]
    for order in itertools.permutations(range(3)):
        pixels = annotated(GREY, [masks[place] for place in order], 160)
        for number, place in enumerate(order):
            side = 4 * int(np.sqrt(masks[place].sum()))
            assert _drawn(pixels, number).sum() > 4 * side * 0.4, (order, number)


def test_both_colours_show_where_outlines_coincide() -> None:
    pixels = annotated(GREY, [_square(10, 30), _square(10, 30), _square(10, 30)], 160)
    shares = [_drawn(pixels, number).sum() for number in range(3)]
    assert min(shares) > 20 and sum(shares) > 200


def test_a_light_fill_tints_the_inside_and_can_be_left_out() -> None:
    filled, plain = (annotated(GREY, [_square(10, 30)], 40, fill=fill)[20, 20] for fill in (0.15, 0))
    np.testing.assert_array_equal(plain, [90, 90, 90])
    np.testing.assert_array_equal(filled, np.rint(0.85 * 90 + 0.15 * np.array(rgb(line_of(0).colour))))


def test_many_regions_have_different_lines() -> None:
    assert len({line_of(number) for number in range(25)}) == 25
    assert line_of(0).colour == line_of(5).colour


@pytest.mark.parametrize("side", [60, 97, 240])
@pytest.mark.parametrize("plane", PLANES)
def test_plane_position_and_sides_are_written_at_any_size(side: int, plane: str) -> None:
    black = np.zeros((40, 30), np.uint8)
    pixels = annotated(black, [], side, plane=PLANES[plane], position="S 34.2 mm")
    bright = pixels.max(axis=-1) > 128
    corner = bright[: side // 2, : bright.shape[1] * 2 // 5]
    assert corner.any(axis=1).sum() >= 9  # two lines of small letters
    rows, columns = bright.shape
    edges = [
        bright[rows // 3 : -rows // 3, :14],
        bright[rows // 3 : -rows // 3, -14:],
        bright[-14:, columns // 3 : -columns // 3],
    ]
    assert all(edge.any() for edge in edges)
    assert not annotated(black, [], side).any()  # without a known orientation
