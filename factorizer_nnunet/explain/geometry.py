"""Bring the map of a stage back to the grid of the original image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from factorizer_nnunet.explain.interpolation import coarse_position, interpolate, interpolation_matrix
from factorizer_nnunet.imaging.grid import Grid

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # between NIfTI's axes, x to the right and y to the front, and SimpleITK's


@dataclass(frozen=True)
class Volume:
    """Values (x, y, z) or (x, y, z, channels) on a grid."""

    values: np.ndarray
    grid: Grid

    @property
    def affine(self) -> np.ndarray:
        """Voxels to mm in NIfTI's axes; 4 × 4."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.grid.direction, (3, 3)) * self.grid.spacing
        matrix[:3, 3] = self.grid.origin
        return _RAS @ matrix


@dataclass(frozen=True)
class CaseGeometry:
    """How nnU-Net turned the original image into the network's input; axes in the order of its arrays (z, y, x)."""

    grid: Grid  # of the original image, x first
    shape: tuple[int, ...]  # of the original image, after nnU-Net's transposition
    box: tuple[slice, ...]  # slices of it that nnU-Net cropped to, the bounding box of nonzero voxels
    preprocessed: tuple[int, ...]  # shape of the crop, resampled to the configuration's spacing
    transpose_backward: tuple[int, ...]  # nnU-Net's
    oriented: bool  # whether the file says where the patient's sides are: photographs do not

    @classmethod
    def of(
        cls, properties: Mapping[str, Any], preprocessed: Sequence[int], transpose_backward: Sequence[int]
    ) -> CaseGeometry:
        """From what nnU-Net's preprocessing returns."""
        shape = tuple(int(n) for n in properties["shape_before_cropping"])
        original = [shape[axis] for axis in transpose_backward]
        return cls(
            grid=_grid(properties, tuple(original[::-1])),
            shape=shape,
            box=tuple(slice(int(a), int(b)) for a, b in properties["bbox_used_for_cropping"]),
            preprocessed=tuple(preprocessed),
            transpose_backward=tuple(transpose_backward),
            oriented="sitk_stuff" in properties or "nibabel_stuff" in properties,
        )

    @property
    def box_xyz(self) -> tuple[slice, ...]:
        """The box on the original grid, x first."""
        return tuple(self.box[axis] for axis in self.transpose_backward)[::-1]

    def from_stage(self, values: np.ndarray, stride: Sequence[int], patch: Sequence[int]) -> np.ndarray:
        """Interpolate a map of a stage linearly to the original grid; 0 outside the box.

        Args:
            values: (*size of the stage's grid,), see ``blending``.
            stride: voxels of the network's input per voxel of the stage.
            patch: nnU-Net's patch size, to which smaller volumes were padded.

        Returns:
            (x, y, z), float32.
        """
        matrices = []
        for axis, size in enumerate(self.preprocessed):
            cropped = self.box[axis].stop - self.box[axis].start
            padding = max(patch[axis] - size, 0) // 2
            positions = coarse_position(np.arange(cropped), cropped / size) + padding
            matrices.append(interpolation_matrix(coarse_position(positions, stride[axis]), values.shape[axis]))
        result = np.zeros(self.shape, np.float32)
        result[self.box] = interpolate(torch.from_numpy(values), matrices).numpy()
        return result.transpose(self.transpose_backward).transpose(2, 1, 0)


def _grid(properties: Mapping[str, Any], size: tuple[int, ...]) -> Grid:
    """The grid of an image, as far as nnU-Net's reader keeps it; ``size`` is (x, y, z)."""
    if "sitk_stuff" in properties:
        header = properties["sitk_stuff"]
        spacing, origin, direction = (tuple(header[key]) for key in ("spacing", "origin", "direction"))
        if len(spacing) == 2:
            spacing, origin = (*spacing, 1.0), (*origin, 0.0)
            direction = (*direction[:2], 0.0, *direction[2:], 0.0, 0.0, 0.0, 1.0)
        return Grid(size, spacing, origin, direction)
    if "nibabel_stuff" in properties:
        header = properties["nibabel_stuff"]
        ras = np.asarray(header.get("reoriented_affine", header["original_affine"]))
        lps = _RAS @ ras
        norms = np.linalg.norm(lps[:3, :3], axis=0)
        return Grid(size, tuple(norms), tuple(lps[:3, 3]), tuple((lps[:3, :3] / norms).ravel()))
    # Photographs and stacks of them: nnU-Net knows no more than the size of their pixels.
    x, y, z = (float(mm) for mm in properties["spacing"][::-1])
    return Grid(size, (x, y, z if size[2] > 1 else 1.0), (0.0, 0.0, 0.0), _IDENTITY)
