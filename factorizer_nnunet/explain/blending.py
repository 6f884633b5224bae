"""Maps of patches, at the resolution of a stage, blended to maps of a whole volume on disk.

nnU-Net's sliding window puts patches anywhere, not only at multiples of a stage's stride. So each stage has a grid of
its own over the volume, with voxels of ``stride`` voxels of the volume; a patch's maps are interpolated to those
whose centres it contains (where it starts at a multiple of the stride, they are its voxels, unchanged) and
weighted as nnU-Net weights its logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from factorizer_nnunet.explain.interpolation import coarse_position, fine_position, interpolate, weights_at


@dataclass(frozen=True)
class PatchPlace:
    """Which voxels of the volume a patch is, per axis; in a 2D configuration it is one voxel thick along the first."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]


class BlendedMaps:
    """Sums of weighted patches; the maps lie in a file, so that memory does not grow with their number.

    Args:
        file: to be made; it goes with the folder it is in.
        count: number of maps.
        size: of the volume in voxels, padded to at least a patch.
        stride: voxels of the volume per voxel of the stage.
    """

    def __init__(self, file: Path, count: int, size: Sequence[int], stride: Sequence[int]) -> None:
        self.stride = tuple(stride)
        # Voxels whose centres lie in the volume; others no patch contains.
        self.size = tuple(int(s / t + 0.5) for s, t in zip(size, stride, strict=True))
        self._sums = np.lib.format.open_memmap(file, "w+", np.float32, (count, *self.size))
        self._weights = np.zeros(self.size, np.float32)

    def add(self, maps: Tensor, place: PatchPlace, gaussian: Tensor) -> None:
        """Add one patch.

        Args:
            maps: (count, *size of the stage).
            place: of the patch.
            gaussian: nnU-Net's weights of a patch, (*patch,), on the device of the maps.
        """
        targets, of_maps, of_weights = [], [], []
        for axis, (start, patch, stride) in enumerate(zip(place.starts, place.sizes, self.stride, strict=True)):
            first = int(np.ceil(coarse_position(np.float64(start - 0.5), stride)))
            last = int(np.floor(coarse_position(np.float64(start + patch - 0.5), stride)))
            own = np.arange(first, min(last, self.size[axis] - 1) + 1)
            within = fine_position(own, stride) - start  # voxels of the patch
            targets.append(slice(first, first + len(own)))
            of_maps.append(weights_at(coarse_position(within, stride), maps.shape[axis + 1]))
            of_weights.append(weights_at(within, patch))
        with torch.autocast(maps.device.type, enabled=False):  # the smallest weights are 0 in half precision
            weights = interpolate(gaussian.float(), _on(of_weights, maps))
            blended = interpolate(maps.float(), _on(of_maps, maps)) * weights
        self._sums[(slice(None), *targets)] += blended.cpu().numpy()
        self._weights[tuple(targets)] += weights.cpu().numpy()

    def __len__(self) -> int:
        return len(self._sums)

    def mean(self, index: int) -> np.ndarray:
        """One map, float32, of ``size``; 0 where there was no patch."""
        return self._sums[index] / np.maximum(self._weights, np.finfo(np.float32).tiny)


def _on(matrices: Sequence[np.ndarray], like: Tensor) -> list[Tensor]:
    return [torch.from_numpy(matrix).to(like.device) for matrix in matrices]
