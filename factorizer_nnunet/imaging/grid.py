"""The voxel grid of a NIfTI header as SimpleITK, and so nnU-Net, reads it, with repairs for headers it rejects."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
from nibabel.spatialimages import HeaderDataError

from factorizer_nnunet.imaging.limits import at_most, shortest_decimal

GEOMETRY_TOLERANCE = 0.05  # voxels by which the position of a voxel may differ; headers are rounded by far less
_RIGHT_ANGLE = 1e-3  # largest cosine between two axes that counts as a right angle
HEADER_BYTES = 352  # the 348-byte header and four bytes that announce extensions
_ERROR_LEVEL = 40  # nibabel's severity "error"; it fixes less severe header problems in memory
_SILENT = logging.Logger("silent")
_SILENT.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Grid:
    """Position of the voxels of a 3D image in SimpleITK's coordinates: mm, x to the left, y to the back, z up."""

    size: tuple[int, ...]  # (x, y, z)
    spacing: tuple[float, ...]  # mm
    origin: tuple[float, ...]  # mm, centre of the first voxel
    direction: tuple[float, ...]  # 3 × 3, row by row

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """The spacing without the rounding of the header's float32: what measurements in mm use."""
        return tuple(map(shortest_decimal, self.spacing))

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel in mm³."""
        return float(np.prod(self.spacing_mm))


def cropped(grid: Grid, box: tuple[slice, ...]) -> Grid:
    """The grid of a part of an image; every slice of ``box`` has a start and a stop, or is complete."""
    bounds = [part.indices(n)[:2] for part, n in zip(box, grid.size, strict=True)]
    origin = _steps(grid) @ [start for start, _ in bounds] + grid.origin
    return replace(grid, size=tuple(stop - start for start, stop in bounds), origin=tuple(map(float, origin)))


def geometry_difference(grid: Grid, reference: Grid) -> str | None:
    """Describe how `grid` differs from `reference`; None if no voxel moves by more than `GEOMETRY_TOLERANCE`."""
    if grid.size != reference.size:
        return f"shape {grid.size} differs from {reference.size}"
    if at_most(_largest_offset_voxels(grid, reference), GEOMETRY_TOLERANCE):
        return None
    alone = {
        name: _largest_offset_voxels(replace(reference, **{name: getattr(grid, name)}), reference)
        for name in ("spacing", "origin", "direction")
    }
    name = max(alone, key=alone.__getitem__)
    return f"{name} {_rounded(getattr(grid, name))} differs from {_rounded(getattr(reference, name))}"


def spacing_difference(spacing: Sequence[float], reference: Sequence[float]) -> str | None:
    """Describe how voxel sizes in mm differ by nnU-Net's own limit, narrower than ours; None if they do not."""
    same = len(spacing) == len(reference) and np.allclose(spacing, reference)  # images may have different axes
    return None if same else f"voxel size {spacing} mm differs from {reference} mm"


def largest_offset_mm(grid: Grid, reference: Grid) -> float:
    """Largest distance between the same voxel of two grids of one size; it occurs at a corner."""
    return float(np.linalg.norm(_offsets_mm(grid, reference, grid.size), axis=0).max())


def _largest_offset_voxels(grid: Grid, reference: Grid) -> float:
    """The same distance in voxels of `reference`; along an axis of one voxel, that of the voxel's neighbour counts."""
    if not all(np.isfinite((*g.spacing, *g.origin, *g.direction)).all() for g in (grid, reference)):
        return math.inf  # a damaged header
    offsets = _offsets_mm(grid, reference, tuple(max(n, 2) for n in grid.size))
    return float(np.linalg.norm(np.linalg.pinv(_steps(reference)) @ offsets, axis=0).max())


def _offsets_mm(grid: Grid, reference: Grid, size: tuple[int, ...]) -> np.ndarray:
    """From the corners of `reference` to those of `grid`, mm, (3, 8), if both had this size."""
    corners = _corners(size)
    ours, theirs = (_steps(g) @ corners + np.reshape(g.origin, (3, 1)) for g in (grid, reference))
    return ours - theirs


def _steps(grid: Grid) -> np.ndarray:
    """The step from voxel to voxel along each axis, mm, (3, 3), one column per axis."""
    return np.reshape(grid.direction, (3, 3)) * grid.spacing


def has_right_angles(grid: Grid) -> bool:
    """Whether the axes of a grid are at right angles, within `_RIGHT_ANGLE`."""
    axes = np.reshape(grid.direction, (3, 3))
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() <= _RIGHT_ANGLE)


def fixed_header(header: nibabel.Nifti1Header) -> nibabel.Nifti1Header:
    """Return a copy in which nibabel has fixed minor problems, such as a missing sign of the third axis.

    Raises:
        HeaderDataError: a problem is too severe to fix.
    """
    copy = header.copy()
    copy.check_fix(_SILENT, error_level=_ERROR_LEVEL)
    return copy


def header_and_grid(header: nibabel.Nifti1Header) -> tuple[nibabel.Nifti1Header, Grid, tuple[str, ...]]:
    """Return the header of one 3D image, its grid, and a description of each repair.

    A header that SimpleITK rejects is changed to the nearest grid that it accepts.

    Raises:
        OSError: the header defines no grid, or none that SimpleITK accepts.
    """
    header = header.copy()
    header.set_data_shape(header.get_data_shape()[:3])
    voxel_mm = header["pixdim"][1:4]
    if not (np.isfinite(voxel_mm).all() and (voxel_mm > 0).all()):  # SimpleITK would silently assume 1 mm
        raise OSError(f"has an invalid voxel size in its header: {' × '.join(f'{mm:g}' for mm in voxel_mm)} mm")
    if not _has_finite_position(header):
        raise OSError("has NaN or infinity in the position that its header gives (sform or qform)")
    try:
        return header, grid_of(header), ()
    except RuntimeError:
        straight, moved = _straightened(fixed_header(header))
    try:
        grid = grid_of(straight)
    except RuntimeError as error:
        raise OSError(f"cannot be read by SimpleITK: {str(error).strip().splitlines()[-1]}") from error
    return straight, grid, (f"axes are not at right angles: straightened, which moves voxels by up to {moved} mm",)


def _has_finite_position(header: nibabel.Nifti1Header) -> bool:
    keys = ["srow_x", "srow_y", "srow_z"] if header["sform_code"] > 0 else []
    if header["qform_code"] > 0:
        keys += ["quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"]
    return all(bool(np.isfinite(header[key]).all()) for key in keys)


def grid_of(header: nibabel.Nifti1Header) -> Grid:
    """Return the grid that SimpleITK reads from the header of one 3D image.

    Raises:
        RuntimeError: SimpleITK rejects the header.
    """
    single = header.copy()
    single["vox_offset"] = HEADER_BYTES
    return _grid_of_bytes(single.binaryblock + bytes(4))


@lru_cache(maxsize=256)  # the files of a case, often of a complete data set, have the same header
def _grid_of_bytes(header: bytes) -> Grid:
    # SimpleITK reads voxels only when asked to, so a file with nothing but the header is enough.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "header.nii"
        file.write_bytes(header)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        shows_warnings = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)  # warnings would name the temporary file
        try:
            reader.ReadImageInformation()
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shows_warnings)
    grid = grid_from_sitk(reader)
    assert grid is not None  # such a header describes three axes
    return grid


def grid_from_sitk(image: sitk.Image | sitk.ImageFileReader) -> Grid | None:
    """The grid of an image, or of a reader that has read a header; None unless it has three axes."""
    if image.GetDimension() != 3:
        return None
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def _straightened(header: nibabel.Nifti1Header) -> tuple[nibabel.Nifti1Header, float]:
    """Return a header with the nearest orthogonal axes as qform and sform, and the largest shift of a voxel in mm."""
    try:
        affine = header.get_best_affine()
    except HeaderDataError as error:
        raise OSError(f"has no valid orientation in its header: {error}") from error
    if not np.isfinite(affine).all() or not np.linalg.det(affine[:3, :3]):
        raise OSError("has a singular or non-finite affine matrix in its header")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    straight = affine.copy()
    straight[:3, :3] = left @ right * spacing
    # Keep the centre of the image in place.
    size = tuple(header.get_data_shape())
    straight[:3, 3] += (affine - straight)[:3, :3] @ ((np.array(size) - 1) / 2)
    change = affine - straight
    moved = np.linalg.norm(change[:3, :3] @ _corners(size) + change[:3, 3:], axis=0).max()
    result = header.copy()
    code = int(header["sform_code"]) or int(header["qform_code"]) or 1
    result.set_qform(straight, code)
    result.set_sform(straight, code)
    return result, round(float(moved), 3)


def _corners(size: tuple[int, ...]) -> np.ndarray:
    """Voxel indices of the eight corners, (3, 8)."""
    return np.array(np.meshgrid(*((0, n - 1) for n in size))).reshape(3, -1)


def _rounded(numbers: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(number, 4) for number in numbers)
