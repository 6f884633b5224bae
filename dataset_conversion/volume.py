"""Read one NIfTI file strictly: every byte is checked, and voxels come as the file holds them.

SimpleITK, which nnU-Net reads with, is lenient: it fills what a truncated file lacks with zeros and turns NaN into 0.
So voxels are read by nibabel from a stream whose checksum has been verified; only the grid is taken from SimpleITK,
since what it makes of the header is what nnU-Net will see.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
from nibabel.filebasedimages import ImageFileError
from nibabel.wrapstruct import WrapStructError

GZIP_MAGIC = b"\x1f\x8b"
GEOMETRY_TOLERANCE = 1e-3  # mm for spacing and origin; the files of a release differ by rounding, far below this
INTEGER_TOLERANCE = 1e-3  # label values; scaled integers come back as 0.9999999


@dataclass(frozen=True)
class Volume:
    """A 3D image: `values` (x, y, z), scaled as the header says, and its grid in SimpleITK's terms."""

    values: np.ndarray
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file, compressed or not, whatever its name says.

    Raises:
        OSError: it cannot be read, is truncated or damaged, or is not 3D.
    """
    content = path.read_bytes()
    try:
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
        values = np.asanyarray(nibabel.Nifti1Image.from_bytes(content).dataobj)
    except (EOFError, zlib.error, OSError, ValueError, ImageFileError, WrapStructError) as error:
        raise OSError(f"cannot be read as NIfTI, truncated or damaged: {error or type(error).__name__}") from error
    if values.ndim != 3:
        raise OSError(f"is not one 3D volume: shape {values.shape}")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise OSError(f"cannot be read by SimpleITK: {str(error).strip().splitlines()[-1]}") from error
    return Volume(values, reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def geometry_difference(volume: Volume, reference: Volume) -> str | None:
    """Return how the grid of `volume` differs from that of `reference`, or None if voxels lie on one another."""
    if volume.size != reference.size:
        return f"shape {volume.size} differs from {reference.size}"
    for name in ("spacing", "origin", "direction"):
        here, there = getattr(volume, name), getattr(reference, name)
        if not np.allclose(here, there, rtol=0, atol=GEOMETRY_TOLERANCE):
            return f"{name} {_rounded(here)} differs from {_rounded(there)}"
    return None


def count_not_finite(values: np.ndarray) -> int:
    """Return how many values are NaN or infinite."""
    return 0 if np.issubdtype(values.dtype, np.integer) else int(np.count_nonzero(~np.isfinite(values)))


def integer_labels(values: np.ndarray) -> np.ndarray:
    """Return finite label values as integers, int64 in the same shape.

    Raises:
        ValueError: some are no integers, within `INTEGER_TOLERANCE`.
    """
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.int64)
    rounded = np.rint(values)
    wrong = np.abs(values - rounded) > INTEGER_TOLERANCE
    if wrong.any():
        examples = ", ".join(f"{value:g}" for value in np.unique(values[wrong])[:3])
        raise ValueError(f"{int(wrong.sum())} voxels hold values that are no integers, e.g. {examples}")
    return rounded.astype(np.int64)


def _rounded(numbers: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(number, 4) for number in numbers)
