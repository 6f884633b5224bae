"""Blend maps of patches, at the resolution of a stage, into maps of the complete volume, stored on disk.

nnU-Net's sliding window puts patches anywhere, not only at multiples of a stage's stride. So each stage has its own
grid over the volume, with one voxel per ``stride`` voxels of the volume. A patch's maps are interpolated to the voxels
of this grid whose centres it contains (if the patch starts at a multiple of the stride, these are its own voxels) and
weighted as nnU-Net weights its logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from factorizer_nnunet.explain.interpolation import coarse_position, fine_position, interpolate, interpolation_matrix


@dataclass(frozen=True)
class PatchPosition:
    """First voxel and size of a patch in the volume, per axis; a patch of a 2D configuration is one voxel thick."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]


class BlendedMaps:
    """Weighted sums of patches; the maps are in a memory-mapped file, so memory does not grow with their number.

    Args:
        file: new file for the maps; whoever owns its folder removes it.
        count: number of maps.
        size: of the volume in voxels, padded to at least a patch.
        stride: voxels of the volume per voxel of the stage.
    """

    def __init__(self, file: Path, count: int, size: Sequence[int], stride: Sequence[int]) -> None:
        self.stride = tuple(stride)
        # Voxels whose centres lie in the volume; no patch contains others.
        self.size = tuple(int(s / t + 0.5) for s, t in zip(size, stride, strict=True))
        self._sums = np.lib.format.open_memmap(file, "w+", np.float32, (count, *self.size))
        self._weights = np.zeros(self.size, np.float32)

    def add(self, maps: Tensor, position: PatchPosition, gaussian: Tensor) -> None:
        """Add the maps (count, *size of the stage) of a patch with nnU-Net's weights (*patch,), on the same device."""
        target: list[slice] = []
        map_matrices, weight_matrices = [], []
        for axis, (start, patch, stride) in enumerate(zip(position.starts, position.sizes, self.stride, strict=True)):
            first = int(np.ceil(coarse_position(np.float64(start - 0.5), stride)))
            last = int(np.floor(coarse_position(np.float64(start + patch - 0.5), stride)))
            own = np.arange(first, min(last, self.size[axis] - 1) + 1)
            within = fine_position(own, stride) - start  # voxels of the patch
            target.append(slice(first, first + len(own)))
            map_matrices.append(interpolation_matrix(coarse_position(within, stride), maps.shape[axis + 1]))
            weight_matrices.append(interpolation_matrix(within, patch))
        with torch.autocast(maps.device.type, enabled=False):  # the smallest weights are 0 in half precision
            weights = interpolate(gaussian.float(), weight_matrices)
            blended = interpolate(maps.float(), map_matrices) * weights
        in_all_maps = (slice(None), *target)
        self._sums[in_all_maps] += blended.cpu().numpy()
        self._weights[tuple(target)] += weights.cpu().numpy()

    def __len__(self) -> int:
        return len(self._sums)

    def mean(self, index: int) -> np.ndarray:
        """One map, float32, of ``size``; 0 where there was no patch."""
        return self._sums[index] / np.maximum(self._weights, np.finfo(np.float32).tiny)
