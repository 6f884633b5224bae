"""NIfTI files with tiny volumes, for trees of releases."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel
import numpy as np

# BraTS: 1 mm, x and y opposite to NIfTI's, with the origin of real files.
BRATS_AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])


def axes(
    spacing: tuple[float, float, float],
    degrees: float = 0.0,
    origin: tuple[float, float, float] = (-20.0, -30.0, 5.0),
) -> np.ndarray:
    """Affine of a grid with ``spacing`` and ``origin`` in mm, turned about x by ``degrees``."""
    angle = np.deg2rad(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array(spacing)
    affine[:3, 3] = origin
    return affine


def rng_of(name: str) -> np.random.Generator:
    """Separate random numbers for each name, the same in every run."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def intensities(name: str, shape: tuple[int, ...], dtype: str = "int16") -> np.ndarray:
    """Random intensities above 0 within a border of zeros in plane, as around a skull-stripped brain."""
    values = np.zeros(shape)
    inner = values[1:-1, 1:-1]
    inner[...] = rng_of(name).uniform(50, 900, inner.shape)
    return values.astype(dtype)


def labels(name: str, shape: tuple[int, ...], values: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    """A block of random voxels that contains each of ``values`` (without 0), on background."""
    result = np.zeros(shape, dtype)
    block = result[2:-2, 2:-2, 2:-2]
    block[...] = rng_of(name).choice((0, *values), block.shape)
    block.flat[: len(values)] = values
    return result


def head(
    shape: tuple[int, int, int], affine: np.ndarray, *, shift_mm: float = 0.0, contrast: float = 1.0
) -> np.ndarray:
    """A head of ellipsoids on a grid, moved by ``shift_mm`` along x, for registration.

    The head is about 50 x 60 x 40 mm around (0, 0, 20); float32, with noise in the background.
    """
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    x = x - shift_mm

    def inside(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        return sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii, strict=True)) < 1

    result = 400.0 * inside((0, 0, 20), (25, 30, 20)).astype(float)
    result[inside((0, 2, 20), (19, 24, 15))] = 400 + 300 * contrast
    result[inside((-7, 4, 22), (4, 10, 6))] = 150
    result[inside((6, -6, 18), (5, 7, 6))] = 250
    result[inside((11, 10, 24), (4, 4, 4))] = 1100
    return (result + rng_of(f"{shape}{contrast}").uniform(0, 20, shape)).astype("float32")


def write(
    path: Path,
    values: np.ndarray,
    affine: np.ndarray = BRATS_AFFINE,
    *,
    codes: tuple[int, int] = (1, 1),
    slope: float | None = None,
    plain: bool = False,
) -> Path:
    """Write ``values`` unchanged to ``path`` and return it.

    Args:
        path: *.nii or *.nii.gz; folders above are made.
        values: voxels, stored in their own type.
        affine: 4 x 4, in mm.
        codes: qform_code and sform_code.
        slope: scl_slope of the header, by which readers multiply the voxels.
        plain: write uncompressed regardless of the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header.set_xyzt_units("mm")
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    if plain:
        path.write_bytes(image.to_bytes())
    else:
        nibabel.save(image, path)
    return path
