"""How a stage is cut into windows, for any spatial size.

A shift moves the windows by a fraction of their size, so every window of every shift is a union of small blocks:
windows of 8 shifted by a half consist of blocks of 4. All sums over windows (``ops.mixer.gram``) are computed once on
blocks and added for each shift. Where these blocks would be too small for that to pay (four shifts), the shifts are
split into families that share larger blocks.

At the border, windows are cut off (``border="cut"``) or wrap around to the opposite face (``"cyclic"``, as published).
The default is to cut: opposite faces of a patch are not adjacent in the body, and a stage is then padded with zeros
only to complete blocks, not to complete windows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

# Shifts are simple fractions of a window (1/2, 1/4, 3/8); larger denominators are rounding noise of JSON floats.
_LARGEST_DENOMINATOR = 64


@functools.lru_cache(maxsize=256)  # fractions are slow, and planning uses the same few shifts repeatedly
def shift_steps(shifts: tuple[float, ...]) -> tuple[int, tuple[int, ...]]:
    """Shifts along one axis as integer multiples of equal parts of a window: (0, 0.5) is 2 parts, moved by 0 and 1."""
    fractions = [Fraction(shift).limit_denominator(_LARGEST_DENOMINATOR) for shift in shifts]
    parts = math.lcm(*(fraction.denominator for fraction in fractions))
    return parts, tuple(int(fraction * parts) for fraction in fractions)


def axis_shifts(shifts: Sequence[float | Sequence[float]], ndim: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """``shift_steps`` for each axis; a shift is one fraction of a window for all axes, or one per axis."""
    rows = [tuple(shift) if isinstance(shift, Sequence) else (shift,) * ndim for shift in shifts]
    return tuple(shift_steps(fractions) for fractions in zip(*rows, strict=True))


def spread_over(
    shifts: Sequence[tuple[int, tuple[int, ...]]], num_shifts: int | None
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Select ``num_shifts`` of the shifts from ``axis_shifts``, the first and others evenly spread; all if None.

    Of four shifts by quarters of a window, two are 0 and a half: as far apart as possible, and with common blocks. The
    parts of a window stay the same, so windows lie as they do with all shifts, with which networks were trained.
    """
    if num_shifts is None:
        return tuple(shifts)
    return tuple(
        (parts, tuple(steps[i * len(steps) // num_shifts] for i in range(num_shifts))) for parts, steps in shifts
    )


@dataclass(frozen=True)
class AxisGrid:
    """Blocks and windows along one axis of ``size`` voxels.

    ``num_blocks`` blocks of ``block`` voxels cover the axis; a window spans ``blocks_per_window`` of them, and in
    shift k the window borders lie ``offsets[k]`` blocks from the start, modulo the window. ``cyclic`` windows that
    cross the end continue at the start; others are cut off there.
    """

    size: int
    block: int
    num_blocks: int
    blocks_per_window: int
    offsets: tuple[int, ...]
    cyclic: bool = False

    @property
    def padding(self) -> int:
        """Zero voxels appended so that the axis consists of complete blocks."""
        return self.block * self.num_blocks - self.size

    @property
    def window(self) -> int:
        """Voxels of a complete window."""
        return self.block * self.blocks_per_window


def axis_grid(size: int, window: int, parts: int, steps: Sequence[int], cyclic: bool = False) -> AxisGrid:
    """Divide one axis into balanced blocks (10 voxels, windows of 8 in 2 parts: three blocks of 4).

    A window is ``parts`` blocks and shift k moves it by ``steps[k]`` of them. An axis that fits into one window is
    one block and is not shifted; neither are windows of a single voxel. Cyclic windows must fill the axis, so it is
    padded to complete ones; a single window of exactly its size is rotated by a shift, which affects a stored start.
    """
    if size < window or (size == window and not cyclic):
        return AxisGrid(size, size, 1, 1, (0,) * len(steps))
    if window == 1:
        return AxisGrid(size, 1, size, 1, (0,) * len(steps))
    num_blocks = -(-size // window) * parts if cyclic else -(-size * parts // window)
    return AxisGrid(size, -(-size // num_blocks), num_blocks, parts, tuple(steps), cyclic)


@dataclass(frozen=True)
class WindowGrid:
    """The windows of one stage: one AxisGrid per spatial axis, and the distinct shifts, in blocks per axis."""

    axes: tuple[AxisGrid, ...]
    offsets: tuple[tuple[int, ...], ...]


def window_grid(
    spatial_size: Sequence[int],
    window: Sequence[int | None],
    shifts: Sequence[tuple[int, tuple[int, ...]]],
    cyclic: bool = False,
) -> WindowGrid:
    """Divide a stage of ``spatial_size`` voxels into windows; shifts that coincide (short axes) are kept once.

    ``window`` is in voxels per axis, None for the full axis, which is then not shifted; ``shifts`` come from
    ``axis_shifts``.
    """
    axes = []
    for size, voxels, (parts, steps) in zip(spatial_size, window, shifts, strict=True):
        single = AxisGrid(size, size, 1, 1, (0,) * len(steps))
        axes.append(single if voxels is None else axis_grid(size, voxels, parts, steps, cyclic))
    offsets = tuple(dict.fromkeys(zip(*(axis.offsets for axis in axes), strict=True)))
    return WindowGrid(tuple(axes), offsets)


@dataclass(frozen=True)
class Family:
    """Shifts whose windows consist of the same blocks, in a volume that is moved so that blocks begin at its start.

    ``grid`` describes the moved volume. Along an axis whose windows are cut off at the border, ``fronts`` zero voxels
    precede the first one; a cyclic axis is padded to complete windows and rolled back by ``rolls`` voxels.
    """

    grid: WindowGrid
    fronts: tuple[int, ...]
    rolls: tuple[int, ...]

    @property
    def moves(self) -> bool:
        """Whether the moved volume differs from the volume."""
        return any(self.fronts) or any(self.rolls)


def families(grid: WindowGrid, min_voxels: int) -> list[Family]:
    """Split the shifts of a grid into as few families as possible whose blocks have at least ``min_voxels`` voxels.

    Either all shifts share blocks; or shifts that differ by half windows share blocks of half a window; or each shift
    has its own windows as blocks. (Windows of 8 with shifts of 0, 2, 4, 6 voxels: blocks of 2 for all, or of 4 for 0
    and 4, and for 2 and 6.)
    """
    whole = [axis.blocks_per_window for axis in grid.axes]
    half = [count if count % 2 else count // 2 for count in whole]
    result: list[Family] = []
    for steps in ([1] * len(whole), half, whole):
        voxels = math.prod([axis.block * step for axis, step in zip(grid.axes, steps, strict=True)])
        members: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for offset in grid.offsets:
            start = tuple(o % step for o, step in zip(offset, steps, strict=True))
            members.setdefault(start, []).append(offset)
        result = [_family(grid, steps, start, offsets) for start, offsets in members.items()]
        if voxels >= min_voxels:
            break
    return result


def window_family(grid: WindowGrid, offset: Sequence[int]) -> Family:
    """The family of a single shift, one of ``grid.offsets``, whose blocks are its windows."""
    steps = [axis.blocks_per_window for axis in grid.axes]
    start = tuple(o % step for o, step in zip(offset, steps, strict=True))
    return _family(grid, steps, start, [start])


def _family(grid: WindowGrid, steps: Sequence[int], start: Sequence[int], offsets: Sequence[tuple[int, ...]]) -> Family:
    """The family of ``offsets``; a block is ``steps`` blocks of the grid, and the first blocks begin at ``start``."""
    axes, fronts, rolls = [], [], []
    for axis, step, first in zip(grid.axes, steps, start, strict=True):
        block = axis.block * step
        front = 0 if axis.cyclic else -first % step * axis.block
        roll = first * axis.block if axis.cyclic else 0
        size = axis.size + (axis.padding if roll else front)
        axes.append(
            replace(
                axis,
                size=size,
                block=block,
                num_blocks=axis.num_blocks // step if axis.cyclic else -(-size // block),
                blocks_per_window=axis.blocks_per_window // step,
                offsets=(),
            )
        )
        fronts.append(front)
        rolls.append(roll)
    # On an axis that is cut off and moved, the first block begins before the volume, one block before ``start``.
    moved = tuple(
        tuple(
            (o - first) // step + (1 if front else 0)
            for o, first, step, front in zip(offset, start, steps, fronts, strict=True)
        )
        for offset in offsets
    )
    return Family(WindowGrid(tuple(axes), moved), tuple(fronts), tuple(rolls))
