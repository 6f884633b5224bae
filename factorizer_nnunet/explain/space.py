"""The way of a stage's map back to the grid of the original image, and that grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from factorizer_nnunet.explain.interpolation import coarse_position, interpolate, weights_at
from factorizer_nnunet.imaging.grid import Grid


@dataclass(frozen=True)
class Volume:
    """Values of voxels and where these lie.

    Attributes:
        values: (x, y, z), or (x, y, z, channels).
        spacing: mm, along x, y, z.
        origin: mm, centre of the first voxel, x to the patient's left, y to the back, z up, as ITK says it.
        direction: 3 × 3, row by row.
    """

    values: np.ndarray
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


@dataclass(frozen=True)
class CaseSpace:
    """How nnU-Net went from the original image to what the network sees, axes in the order of its arrays (z, y, x).

    Attributes:
        grid: of the original image, x first.
        shape: of the original image, after nnU-Net's transposition.
        box: slices of it that nnU-Net cropped to, where there is any image.
        preprocessed: shape of the crop at the network's voxel size.
        transpose_backward: nnU-Net's.
    """

    grid: Grid
    shape: tuple[int, ...]
    box: tuple[slice, ...]
    preprocessed: tuple[int, ...]
    transpose_backward: tuple[int, ...]

    @classmethod
    def of(
        cls, properties: Mapping[str, Any], preprocessed: Sequence[int], transpose_backward: Sequence[int]
    ) -> CaseSpace:
        """From what nnU-Net's preprocessing returns."""
        shape = tuple(int(n) for n in properties["shape_before_cropping"])
        original = [shape[axis] for axis in transpose_backward]
        return cls(
            grid=_grid(properties, original[::-1]),
            shape=shape,
            box=tuple(slice(int(a), int(b)) for a, b in properties["bbox_used_for_cropping"]),
            preprocessed=tuple(preprocessed),
            transpose_backward=tuple(transpose_backward),
        )

    def from_stage(self, values: np.ndarray, stride: Sequence[int], patch: Sequence[int]) -> np.ndarray:
        """A map of a stage on the original grid, linearly interpolated; 0 outside the box.

        Args:
            values: (*size of the stage's grid,), see ``blending``.
            stride: voxels of the network's input per voxel of the stage.
            patch: size of nnU-Net's patches, to which smaller volumes were padded.

        Returns:
            (x, y, z), float32.
        """
        matrices = []
        for axis, size in enumerate(self.preprocessed):
            original = self.box[axis].stop - self.box[axis].start
            padding = max(patch[axis] - size, 0) // 2
            positions = coarse_position(np.arange(original), original / size) + padding
            matrices.append(torch.from_numpy(weights_at(coarse_position(positions, stride[axis]), values.shape[axis])))
        return self._uncropped(interpolate(torch.from_numpy(values), matrices).numpy())

    @property
    def box_xyz(self) -> tuple[slice, ...]:
        """The box on the original grid, x first."""
        return tuple(self.box[axis] for axis in self.transpose_backward)[::-1]

    def to_volume(self, values: np.ndarray) -> Volume:
        """Values (x, y, z, …) on the original grid with its geometry."""
        return Volume(values, self.grid.spacing, self.grid.origin, self.grid.direction)

    def _uncropped(self, crop: np.ndarray) -> np.ndarray:
        whole = np.zeros(self.shape, crop.dtype)
        whole[self.box] = crop
        return whole.transpose(self.transpose_backward).transpose(2, 1, 0)


def affine(grid: Grid) -> np.ndarray:
    """Voxels to mm as NIfTI says it, x to the right and y to the front."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(grid.direction, (3, 3)) * grid.spacing
    matrix[:3, 3] = grid.origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


def _grid(properties: Mapping[str, Any], size: Sequence[int]) -> Grid:
    """The grid of the arrays of nnU-Net's readers, as far as these keep it; x first."""
    size = tuple(int(n) for n in size)
    if "sitk_stuff" in properties:
        kept = properties["sitk_stuff"]
        spacing, origin, direction = (tuple(kept[key]) for key in ("spacing", "origin", "direction"))
        if len(spacing) == 2:
            spacing, origin = (*spacing, 1.0), (*origin, 0.0)
            direction = (*direction[:2], 0.0, *direction[2:], 0.0, 0.0, 0.0, 1.0)
        return Grid(size, spacing, origin, direction)
    if "nibabel_stuff" in properties:
        kept = properties["nibabel_stuff"]
        ras = np.asarray(kept.get("reoriented_affine", kept["original_affine"]))
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ras
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        return Grid(size, tuple(spacing), tuple(lps[:3, 3]), tuple((lps[:3, :3] / spacing).ravel()))
    # Photographs and stacks of them: what they say of their pixels is all there is.
    spacing = [float(mm) for mm in properties["spacing"][::-1]]
    spacing[2] = spacing[2] if size[2] > 1 else 1.0
    return Grid(size, tuple(spacing), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
