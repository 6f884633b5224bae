"""The grid of a NIfTI header as SimpleITK, and with it nnU-Net, sees it; headers it would refuse are repaired."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
from nibabel.spatialimages import HeaderDataError

GEOMETRY_TOLERANCE = 1e-3  # mm for spacing and origin; the files of a release differ by rounding, far below this
HEADER_BYTES = 352  # the header and four bytes that say whether others follow
_REFUSED = 40  # of nibabel's levels of header problems: error; lesser ones are mended in memory, without a word
_QUIET = logging.Logger("unheard")
_QUIET.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a 3D image lie, as SimpleITK says it: mm, and x to the left, y to the back, z up."""

    size: tuple[int, ...]  # (x, y, z)
    spacing: tuple[float, ...]  # mm
    origin: tuple[float, ...]  # mm, of the first voxel's centre
    direction: tuple[float, ...]  # 3 × 3, row by row

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel in mm³."""
        return float(np.prod(self.spacing))


def geometry_difference(grid: Grid, reference: Grid) -> str | None:
    """Return how `grid` differs from `reference`, or None if voxels lie on one another within the tolerance."""
    if grid.size != reference.size:
        return f"shape {grid.size} differs from {reference.size}"
    for name in ("spacing", "origin", "direction"):
        here, there = getattr(grid, name), getattr(reference, name)
        if not np.allclose(here, there, rtol=0, atol=GEOMETRY_TOLERANCE):
            return f"{name} {_rounded(here)} differs from {_rounded(there)}"
    return None


def mended(header: nibabel.Nifti1Header) -> nibabel.Nifti1Header:
    """Return a copy whose small mistakes, such as a missing sign of the third axis, nibabel has put right.

    Raises:
        HeaderDataError: there are larger ones.
    """
    copy = header.copy()
    copy.check_fix(_QUIET, error_level=_REFUSED)
    return copy


def header_and_grid(header: nibabel.Nifti1Header) -> tuple[nibabel.Nifti1Header, Grid, tuple[str, ...]]:
    """The header for one 3D image and its grid; where SimpleITK refuses it, for the nearest grid it takes, and why.

    Raises:
        OSError: it gives no grid, or none that SimpleITK takes.
    """
    header = header.copy()
    header.set_data_shape(header.get_data_shape()[:3])
    voxel_mm = header["pixdim"][1:4]
    if not (np.isfinite(voxel_mm).all() and (voxel_mm > 0).all()):  # SimpleITK would quietly take 1 mm
        raise OSError(f"has a header with voxels of {' × '.join(f'{mm:g}' for mm in voxel_mm)} mm")
    try:
        return header, _grid(header), ()
    except RuntimeError:
        repaired, moved = _straightened(mended(header))
    try:
        grid = _grid(repaired)
    except RuntimeError as error:
        raise OSError(f"cannot be read by SimpleITK: {str(error).strip().splitlines()[-1]}") from error
    return repaired, grid, (f"axes are not at right angles: straightened, which moves no voxel more than {moved} mm",)


def _grid(header: nibabel.Nifti1Header) -> Grid:
    """What SimpleITK makes of a header; RuntimeError if it refuses it."""
    single = header.copy()
    single["vox_offset"] = HEADER_BYTES
    return _grid_of(single.binaryblock + bytes(4))


@lru_cache(maxsize=256)  # the files of a case, often of a whole release, have the same header
def _grid_of(header: bytes) -> Grid:
    # SimpleITK goes by a file's name and reads voxels only when asked to: a header alone shows what it makes of it.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "header.nii"
        file.write_bytes(header)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        loud = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)  # it would name the file made here, not the user's
        try:
            reader.ReadImageInformation()
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(loud)
    return Grid(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def _straightened(header: nibabel.Nifti1Header) -> tuple[nibabel.Nifti1Header, float]:
    """The header with the nearest right-angled axes in both of its codes; how far that moves a corner at most, mm."""
    try:
        affine = header.get_best_affine()
    except HeaderDataError as error:
        raise OSError(f"has a header without a valid grid: {error}") from error
    if not np.isfinite(affine).all() or not np.linalg.det(affine[:3, :3]):
        raise OSError("has a header that places all voxels on a plane or nowhere")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    straight = affine.copy()
    straight[:3, :3] = left @ right * spacing
    # The middle stays where it is.
    size = np.array(header.get_data_shape())
    straight[:3, 3] += (affine - straight)[:3, :3] @ ((size - 1) / 2)
    corners = np.array(np.meshgrid(*((0, n - 1) for n in size))).reshape(3, -1)
    moved = np.linalg.norm((affine - straight)[:3, :3] @ corners + (affine - straight)[:3, 3:], axis=0).max()
    repaired = header.copy()
    code = int(header["sform_code"]) or int(header["qform_code"]) or 1
    repaired.set_qform(straight, code)
    repaired.set_sform(straight, code)
    return repaired, round(float(moved), 3)


def _rounded(numbers: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(number, 4) for number in numbers)
