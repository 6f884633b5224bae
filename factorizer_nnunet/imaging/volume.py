"""Read NIfTI files strictly, for every part of the package: each byte is verified, and voxels keep their stored values.

SimpleITK, which nnU-Net reads with, is lenient: it fills the missing part of a truncated file with zeros and turns NaN
into 0. Here NumPy reads the voxels from bytes with a verified checksum. Only the grid comes from SimpleITK, because
nnU-Net will use SimpleITK's interpretation of the header.
"""

from __future__ import annotations

import codecs
import gzip
import math
import struct
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

from factorizer_nnunet.imaging.grid import HEADER_BYTES, Grid, fixed_header, header_and_grid

GZIP_MAGIC = b"\x1f\x8b"
COMPRESSION = 4  # on MR images as fast as lower levels, twice as fast as gzip's default 6, and 3 % larger
MAX_DEFLATE_RATIO = 1032  # the largest compression ratio that the deflate format allows
_HEADER_ONLY = 348  # bytes, without extensions
_NIFTI_1 = tuple(struct.pack(order + "i", _HEADER_ONLY) for order in "<>")
_NIFTI_2 = tuple(struct.pack(order + "i", 540) for order in "<>")
_HEADER_ERRORS = (  # that nibabel raises for damaged headers
    WrapStructError, HeaderDataError, HeaderTypeError, ImageFileError, OverflowError, ValueError, KeyError
)  # fmt: skip
_FETCH_AGAIN = "download or copy it again"


@dataclass(frozen=True)
class Volume:
    """Content of a NIfTI file: one 3D image, or a series of 3D images.

    `header` describes one 3D image on `grid`. It is repaired if SimpleITK would reject it; `repairs` lists how.
    """

    stored: np.ndarray  # (x, y, z), or (x, y, z, t) for a series; stored values, read-only
    slope: float  # values = stored · slope + intercept
    intercept: float
    header: nibabel.Nifti1Header
    grid: Grid
    gzipped: bool
    repairs: tuple[str, ...] = ()  # empty: nnU-Net can read the file as it is
    flat: bool = False  # the file is a 2D image, here a single slice

    @property
    def series(self) -> int | None:
        """Number of 3D images in a series; None for a 3D image."""
        return None if self.stored.ndim == 3 else self.stored.shape[3]

    @cached_property
    def values(self) -> np.ndarray:
        """Stored values with the header's scaling applied."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return self.stored
        return apply_read_scaling(self.stored, self.slope, self.intercept)

    def part(self, number: int | None) -> Volume:
        """Return image `number` of a series, (x, y, z); None stands for a file with a single 3D image.

        Raises:
            OSError: the file is a series although `number` is None, or has no such image.
        """
        if number is None and self.series is None:
            return self
        if number is None:
            raise OSError(f"is a series of {self.series} images, expected a single 3D image")
        if self.series is None or number >= self.series:
            raise OSError(f"contains {self.series or 1} images, expected a series with at least {number + 1}")
        return replace(self, stored=self.stored[..., number])


def read_volume(path: Path, flat: bool = False) -> Volume:
    """Read a NIfTI file, compressed or not regardless of its name; drop axes of length 1 after the third.

    Args:
        path: the file.
        flat: also read a 2D image, as a single slice.

    Raises:
        OSError: it cannot be read, is truncated or damaged, or is neither a 3D image nor a series of 3D images.
    """
    content, gzipped = _content(path)
    header, shape = _header(content, flat)
    is_flat = len(header.get_data_shape()) == 2
    if is_flat:
        header = _single_slice(header)
    try:
        slope, intercept = header.get_slope_inter()
        dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
    except (HeaderDataError, OverflowError, ValueError) as error:  # an offset may be infinite or NaN
        raise OSError(f"cannot be read as NIfTI: {error}") from error
    if offset < 0:
        raise OSError(f"cannot be read as NIfTI: its voxels begin at byte {offset}")
    if dtype.kind not in "iuf":
        raise OSError(f"has voxels of type {dtype}, expected one real number per voxel")
    voxels = math.prod(shape)
    needed = offset + voxels * dtype.itemsize
    if len(content) < needed:
        raise OSError(f"is truncated: {len(content)} bytes, {needed} according to its header: {_FETCH_AGAIN}")
    stored = np.frombuffer(content, dtype, voxels, offset).reshape(shape, order="F")

    full = tuple(int(n) for n in header.get_data_shape())
    header, grid, repairs = header_and_grid(header)
    if len(full) > len(shape):
        repairs += (f"shape {full} is read as {shape}",)
    scale = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    return Volume(stored, *scale, header, grid, gzipped, repairs, is_flat)


def read_header(path: Path) -> nibabel.Nifti1Header:
    """Return the `Volume.header` of `read_volume` without reading the voxels.

    Raises:
        OSError: it cannot be read, or describes neither a 3D image nor a series of 3D images.
    """
    header, _ = _header(read_beginning(path, HEADER_BYTES))
    return header_and_grid(header)[0]


def read_beginning(path: Path, num_bytes: int) -> bytes:
    """Read the first bytes of a file, uncompressed; OSError, EOFError or zlib.error if it cannot be read."""
    with path.open("rb") as file:
        gzipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    with gzip.open(path) if gzipped else path.open("rb") as file:
        return file.read(num_bytes)


def nifti_bytes(stored: np.ndarray, header: nibabel.Nifti1Header, slope: float = 1.0, intercept: float = 0.0) -> bytes:
    """Return a compressed NIfTI file that takes only its geometry, bit for bit, from `header`.

    stored: (x, y, z), written unchanged; readers see `stored` · `slope` + `intercept`. Equal input gives equal bytes.
    """
    out = nibabel.Nifti1Header(endianness=header.endianness)
    geometry = ("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    for name in (*geometry, "sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"):
        out[name] = header[name]
    out.set_data_dtype(stored.dtype)
    out.set_data_shape(stored.shape)
    out["pixdim"][:4] = header["pixdim"][:4]
    out["vox_offset"] = HEADER_BYTES
    # Explicit numbers: nibabel leaves the scale to its own writer, and not every reader takes NaN for "no scaling".
    out["scl_slope"], out["scl_inter"] = slope, intercept
    voxels = stored.astype(out.get_data_dtype(), copy=False)  # the header's byte order
    return gzip.compress(out.binaryblock + bytes(4) + voxels.tobytes(order="F"), COMPRESSION, mtime=0)


def _content(path: Path) -> tuple[bytes, bool]:
    """Return the uncompressed bytes of a file and whether it was compressed; OSError if it is not complete."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OSError(f"cannot be read: {error.strerror or error}") from error
    if not content:
        raise OSError(f"is empty: {_FETCH_AGAIN}")
    if not content.startswith(GZIP_MAGIC):
        return content, False
    # Allocating the length stored at the end of the stream takes half the time of letting the buffer grow.
    length = int.from_bytes(content[-4:], "little")
    try:
        unpacked = zlib.decompress(content, 31, max(1, min(length, MAX_DEFLATE_RATIO * len(content))))
        if len(unpacked) != length:  # several concatenated streams, or appended bytes
            unpacked = gzip.decompress(content)
    except (EOFError, zlib.error, OSError) as error:
        raise OSError(f"is a truncated or damaged gzip file ({error}): {_FETCH_AGAIN}") from error
    return unpacked, True


def _single_slice(header: nibabel.Nifti1Header) -> nibabel.Nifti1Header:
    """The header of a 2D image as that of a 3D image with one slice, 1 mm thick if no thickness is stated."""
    result = header.copy()
    thickness = float(header["pixdim"][3])
    result.set_data_shape((*header.get_data_shape(), 1))
    result["pixdim"][3] = thickness if math.isfinite(thickness) and thickness > 0 else 1.0
    return result


def _header(content: bytes, flat: bool = False) -> tuple[nibabel.Nifti1Header, tuple[int, ...]]:
    """Return the header of a file and its shape (x, y, z) or (x, y, z, t) without axes of length 1 after z.

    With `flat`, a 2D image has the shape (x, y, 1).
    """
    _check_beginning(content)
    try:
        header = nibabel.Nifti1Header(content[:_HEADER_ONLY], check=False)
        fixed_header(header)
        shape = tuple(int(n) for n in header.get_data_shape())
    except _HEADER_ERRORS as error:
        raise OSError(f"cannot be read as NIfTI: {error}") from error
    squeezed = (*shape, 1) if flat and len(shape) == 2 else shape[:3] + tuple(n for n in shape[3:] if n != 1)
    if len(squeezed) not in (3, 4) or min(squeezed) < 1:
        raise OSError(f"is neither a 3D image nor a series of 3D images: shape {shape}")
    return header, squeezed


def _check_beginning(content: bytes) -> None:
    """Reject other file types under a NIfTI name, such as login pages and Git LFS pointers; OSError describes them."""
    length = content[:4]  # NIfTI files start with the header's length, in either byte order
    if length in _NIFTI_2:
        raise OSError("is a NIfTI-2 file, expected NIfTI-1: save it in that format")
    if length not in _NIFTI_1:
        beginning = content[:24].removeprefix(codecs.BOM_UTF8)
        words = " ".join(beginning.decode("ascii", "replace").split())
        if words and beginning.isascii() and words.isprintable():
            raise OSError(f"is not a NIfTI file but text that starts with {words!r}: {_FETCH_AGAIN}")
        raise OSError("is not a NIfTI file")
    if len(content) < _HEADER_ONLY:
        raise OSError(f"is truncated: {len(content)} bytes, shorter than a header: {_FETCH_AGAIN}")
