"""Slabs contain the blocks of the moved volume, and each voxel once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factorizer_nnunet.network.layout import moved, to_blocks
from factorizer_nnunet.network.ops.mixer import slabs as module
from factorizer_nnunet.network.windows import axis_shifts, families, window_grid

SHIFTS = [(0.0,), (0.0, 0.5), (0.0, 0.25, 0.5, 0.75), (0.125, 0.5)]


@settings(max_examples=40, deadline=None)
@given(
    size=st.lists(st.integers(1, 13), min_size=2, max_size=3),
    window=st.integers(1, 8),
    shifts=st.sampled_from(SHIFTS),
    cyclic=st.booleans(),
    least_voxels=st.sampled_from([1, 16, 10**6]),
    slab_bytes=st.sampled_from([2**9, 2**21]),
)
def test_blocks_of_slabs_are_those_of_the_moved_volume(
    size: list[int], window: int, shifts: tuple, cyclic: bool, least_voxels: int, slab_bytes: int
) -> None:
    grid = window_grid(size, [window] * len(size), axis_shifts(shifts, len(size)), cyclic)
    volume = torch.rand(2, *size, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SLAB_BYTES", slab_bytes)
        for family in families(grid, least_voxels):
            slabs = module.slabs(volume, family)
            counts = [axis.num_blocks for axis in family.grid.axes]
            expected = to_blocks(moved(volume, family), family.grid.axes, 3)
            stored = torch.full(expected.squeeze(len(size) + 1).shape, torch.nan)
            seen, copy = torch.zeros_like(volume), torch.zeros_like(volume)
            for slab in slabs:
                matrices = slab.load(volume)
                slab.store_blocks(matrices, stored)
                torch.testing.assert_close(slab.select_blocks(stored), matrices)
                slab.store(torch.ones_like(matrices), seen, add=True)
                slab.store(matrices, copy)
            torch.testing.assert_close(stored, expected.reshape(2, *counts, -1, 3))
            torch.testing.assert_close(seen, torch.ones_like(seen))
            torch.testing.assert_close(copy, volume)
