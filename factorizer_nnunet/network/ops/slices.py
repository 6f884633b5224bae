"""A volume in slices of voxels that fit the cache, for operations that act on single voxels."""

from __future__ import annotations

from torch import Tensor

SLICE_BYTES = 2**19  # of one tensor with a slice's voxels: two or three of them then fit a core's cache


def voxels_per_slice(x: Tensor, channels: int) -> int:
    """Number of voxels whose ``channels`` values, of x's type, stay in the cache."""
    return max(64, SLICE_BYTES // (channels * x.element_size()))


def slices(x: Tensor, channels: int) -> list[tuple[int, slice]]:
    """Case and voxels of every slice of (B, *spatial, C) that fits the cache with ``channels`` channels."""
    voxels = x[0, ..., 0].numel()
    step = voxels_per_slice(x, channels)
    return [(case, slice(start, start + step)) for case in range(x.shape[0]) for start in range(0, voxels, step)]


def rows(x: Tensor, case: int, part: slice) -> Tensor:
    """Voxels of a case as (n, C), a view of x."""
    return x[case].reshape(-1, x.shape[-1])[part]
