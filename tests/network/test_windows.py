"""Windows cover every stage size with balanced blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorizer_nnunet.network.windows import axis_grid, axis_shifts, families, shift_steps, spread_over, window_grid


@pytest.mark.parametrize(
    ("shifts", "expected"),
    [
        ((0.0,), (1, (0,))),
        ((0.0, 0.5), (2, (0, 1))),
        ((0, 0.25, 0.5, 0.75), (4, (0, 1, 2, 3))),
        ((0, 3 / 8), (8, (0, 3))),
    ],
)
def test_shifts_become_whole_parts(shifts: tuple, expected: tuple) -> None:
    assert shift_steps(shifts) == expected


@pytest.mark.parametrize(
    ("size", "block", "count", "padding"),
    [
        (128, 4, 32, 0),
        (28, 4, 7, 0),
        (10, 4, 3, 2),
        (14, 4, 4, 2),
        (9, 3, 3, 0),
        (8, 8, 1, 0),
        (5, 5, 1, 0),
        (1, 1, 1, 0),
    ],
)
def test_axis_of_half_shifted_windows_of_eight(size: int, block: int, count: int, padding: int) -> None:
    axis = axis_grid(size, 8, 2, (0, 1))
    assert (axis.block, axis.num_blocks, axis.padding) == (block, count, padding)


@given(st.integers(1, 400), st.sampled_from([1, 2, 4, 8, 12]), st.sampled_from([1, 2]))
def test_blocks_cover_the_axis_and_waste_less_than_a_block_each(size: int, window: int, parts: int) -> None:
    axis = axis_grid(size, window, parts, tuple(range(parts)))
    assert axis.block * axis.num_blocks >= size
    assert axis.padding < axis.num_blocks
    assert axis.block * axis.blocks_per_window <= max(window, 1)


def test_shifts_that_coincide_are_kept_once() -> None:
    assert window_grid((5, 6, 7), (8, 8, 8), axis_shifts((0, 0.5), 3)).offsets == ((0, 0, 0),)
    assert window_grid((5, 16, 7), (8, 8, 8), axis_shifts((0, 0.5), 3)).offsets == ((0, 0, 0), (0, 1, 0))


FOUR = (0, 0.25, 0.5, 0.75)


@pytest.mark.parametrize(
    ("window", "shifts", "expected"),
    [
        (8, (0, 0.5), [((4, 4, 4), 2)]),  # blocks and how many shifts share them
        (8, FOUR, [((4, 4, 4), 2), ((4, 4, 4), 2)]),
        (4, FOUR, [((4, 4, 4), 1)] * 4),
        (6, (0, 1 / 3, 2 / 3), [((6, 6, 6), 1)] * 3),
    ],
)
def test_shifts_share_blocks_that_are_large_enough(window: int, shifts: tuple, expected: list) -> None:
    found = families(window_grid((24, 24, 24), (window,) * 3, axis_shifts(shifts, 3)), 28)
    assert [(tuple(a.block for a in f.grid.axes), len(f.grid.offsets)) for f in found] == expected


@pytest.mark.parametrize(("used", "steps"), [(None, (0, 1, 2, 3)), (1, (0,)), (2, (0, 2)), (3, (0, 1, 2))])
def test_some_shifts_are_spread_over_all_and_keep_the_parts(used: int | None, steps: tuple[int, ...]) -> None:
    assert spread_over(axis_shifts((0.0, 0.25, 0.5, 0.75), 2), used) == ((4, steps), (4, steps))
