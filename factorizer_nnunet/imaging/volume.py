"""Read one NIfTI file strictly: every byte is checked, and voxels come as the file holds them.

SimpleITK, which nnU-Net reads with, is lenient: it fills what a truncated file lacks with zeros and turns NaN into 0.
So voxels are read by NumPy from bytes whose checksum has been verified; only the grid is taken from SimpleITK, since
what it makes of the header is what nnU-Net will see.
"""

from __future__ import annotations

import codecs
import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

from factorizer_nnunet.imaging.grid import HEADER_BYTES, Grid, header_and_grid, mended

GZIP_MAGIC = b"\x1f\x8b"
INTEGER_TOLERANCE = 1e-3  # label values; scaled integers come back as 0.9999999
COMPRESSION = 4  # on MR images as fast as less, half the time of gzip's usual 6, and 3 % larger
MAX_DEFLATE_RATIO = 1032  # no byte of a deflate stream can stand for more bytes than this
_HEADER_ONLY = 348  # bytes, without what follows it
_NIFTI_1 = tuple(struct.pack(order + "i", _HEADER_ONLY) for order in "<>")
_NIFTI_2 = tuple(struct.pack(order + "i", 540) for order in "<>")
COUNTED_UP_TO = 2**16 - 1  # label values that are counted by a table; larger ones, always errors, by sorting


@dataclass(frozen=True)
class Volume:
    """What a NIfTI file holds: one 3D image, or a series of them.

    `header` is that of one 3D image on `grid`: repaired where SimpleITK would refuse it, which `repairs` tells.
    """

    stored: np.ndarray  # (x, y, z), or (x, y, z, t) of a series: as in the file, not to be written to
    slope: float  # values = stored · slope + intercept
    intercept: float
    header: nibabel.Nifti1Header
    grid: Grid
    gzipped: bool
    repairs: tuple[str, ...] = ()  # empty: the file's own bytes are what nnU-Net should get

    @property
    def series(self) -> int | None:
        """How many 3D images the file holds one after another; None for a 3D image."""
        return None if self.stored.ndim == 3 else self.stored.shape[3]

    @cached_property
    def values(self) -> np.ndarray:
        """The image, scaled as its header says; without scaling, the stored values themselves."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return self.stored
        return apply_read_scaling(self.stored, self.slope, self.intercept)

    def part(self, number: int) -> Volume:
        """Return one 3D image of a series, (x, y, z).

        Raises:
            IndexError: the series has no such image.
        """
        return replace(self, stored=self.stored[..., number])


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file, compressed or not, whatever its name says; axes of length 1 after the third are dropped.

    Raises:
        OSError: it cannot be read, is truncated or damaged, or holds no 3D image or series of them.
    """
    content, gzipped = _content(path)
    header, shape = _header(content)
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise OSError(f"cannot be read as NIfTI: {error}") from error
    dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
    if dtype.kind not in "iuf":
        raise OSError(f"holds {dtype}, not one real number a voxel")
    voxels = math.prod(shape)
    if len(content) < offset + voxels * dtype.itemsize:
        needed = offset + voxels * dtype.itemsize
        raise OSError(f"is truncated: {len(content)} bytes, {needed} by its header: download it again")
    stored = np.frombuffer(content, dtype, voxels, offset).reshape(shape, order="F")

    full = tuple(int(n) for n in header.get_data_shape())
    header, grid, repairs = header_and_grid(header)
    if len(full) > len(shape):
        repairs += (f"shape {full} is taken as {shape}",)
    scale = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    return Volume(stored, *scale, header, grid, gzipped, repairs)


def read_header(path: Path) -> nibabel.Nifti1Header:
    """Return what `read_volume` has as `Volume.header`, without reading the voxels.

    Raises:
        OSError: it cannot be read, or belongs to no 3D image or series of them.
    """
    with path.open("rb") as file:
        gzipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    with gzip.open(path) if gzipped else path.open("rb") as file:
        header, _ = _header(file.read(HEADER_BYTES))
    return header_and_grid(header)[0]


def nifti_bytes(stored: np.ndarray, header: nibabel.Nifti1Header, slope: float = 1.0, intercept: float = 0.0) -> bytes:
    """Return a NIfTI file, compressed, with the geometry of `header` bit for bit and nothing else of it.

    stored: (x, y, z), written as it is; readers take its values times `slope` plus `intercept`. The same input gives
    the same bytes.
    """
    out = nibabel.Nifti1Header(endianness=header.endianness)
    geometry = ("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    for name in (*geometry, "sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"):
        out[name] = header[name]
    out.set_data_dtype(stored.dtype)
    out.set_data_shape(stored.shape)
    out["pixdim"][:4] = header["pixdim"][:4]
    out["vox_offset"] = HEADER_BYTES
    # Written as numbers: nibabel leaves the scale to its own writer, and NaN stands for "none" only to some readers.
    out["scl_slope"], out["scl_inter"] = slope, intercept
    voxels = stored.astype(out.get_data_dtype(), copy=False)  # the header's byte order
    return gzip.compress(out.binaryblock + bytes(4) + voxels.tobytes(order="F"), COMPRESSION, mtime=0)


def count_not_finite(values: np.ndarray) -> int:
    """Return how many values are NaN or infinite."""
    if values.dtype.kind != "f" or np.isfinite([values.min(), values.max()]).all():  # NaN and infinity show in these
        return 0
    return int(np.count_nonzero(~np.isfinite(values)))


def integer_labels(values: np.ndarray) -> np.ndarray:
    """Return finite label values as integers, in the same shape: those given where they are, otherwise int64.

    Raises:
        ValueError: some are no integers, within `INTEGER_TOLERANCE`.
    """
    if values.dtype.kind != "f":
        return values
    rounded = np.rint(values)
    wrong = np.abs(values - rounded) > INTEGER_TOLERANCE
    if wrong.any():
        examples = ", ".join(f"{value:g}" for value in np.unique(values[wrong])[:3])
        raise ValueError(f"{int(wrong.sum())} voxels hold values that are no integers, e.g. {examples}")
    return rounded.astype(np.int64)


def count_labels(labels: np.ndarray) -> dict[int, int]:
    """Return how many voxels hold each value, smallest value first; `labels` are integers of any shape."""
    # Most voxels are background; only the others are worth a conversion to the integers that tables are counted with.
    flat = labels.ravel(order="K")
    others = flat[flat != 0]
    if others.size and (others.min() < 0 or others.max() > COUNTED_UP_TO):
        values, numbers = np.unique(others, return_counts=True)
        counts = {int(value): int(number) for value, number in zip(values, numbers, strict=True)}
    else:
        table = np.bincount(others.astype(np.int64))
        counts = {int(value): int(table[value]) for value in np.flatnonzero(table)}
    if others.size < flat.size:
        counts[0] = flat.size - others.size
    return dict(sorted(counts.items()))


def remapped(labels: np.ndarray, remap: Mapping[int, int]) -> np.ndarray:
    """Return `labels` with the values in `remap` replaced, all at once; the array itself where nothing is."""
    result = labels.astype(np.int64) if remap else labels
    for old, new in remap.items():
        result[labels == old] = new
    return result


def _content(path: Path) -> tuple[bytes, bool]:
    """The uncompressed bytes of a file and whether they were compressed; OSError if they are not whole."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OSError(f"cannot be read: {error.strerror or error}") from error
    if not content:
        raise OSError("is empty: download it again")
    if not content.startswith(GZIP_MAGIC):
        return content, False
    # Room for all of it at once, by the length at the stream's end: half the time of letting the buffer grow.
    length = int.from_bytes(content[-4:], "little")
    try:
        whole = zlib.decompress(content, 31, max(1, min(length, MAX_DEFLATE_RATIO * len(content))))
        if len(whole) != length:  # several streams one after another, or something appended
            whole = gzip.decompress(content)
    except (EOFError, zlib.error, OSError) as error:
        raise OSError(f"is a truncated or damaged gzip file ({error}): download it again") from error
    return whole, True


def _header(content: bytes) -> tuple[nibabel.Nifti1Header, tuple[int, ...]]:
    """The header a file begins with, and its shape (x, y, z) or (x, y, z, t) without axes of length 1 after z."""
    _check_beginning(content)
    try:
        header = nibabel.Nifti1Header(content[:_HEADER_ONLY], check=False)
        mended(header)
        shape = tuple(int(n) for n in header.get_data_shape())
    except (WrapStructError, HeaderDataError, HeaderTypeError, ImageFileError, ValueError, KeyError) as error:
        raise OSError(f"cannot be read as NIfTI: {error}") from error
    squeezed = shape[:3] + tuple(n for n in shape[3:] if n != 1)
    if len(squeezed) not in (3, 4) or min(squeezed) < 1:
        raise OSError(f"is not one 3D volume: shape {shape}")
    return header, squeezed


def _check_beginning(content: bytes) -> None:
    """Refuse in words what is something else under a NIfTI file's name; OSError if it is.

    Web pages that ask for a login and pointers of large-file storage are the usual ones: their first words tell.
    """
    length = content[:4]  # a NIfTI file begins with the length of its header, in either byte order
    if length in _NIFTI_2:
        raise OSError("is a NIfTI-2 file; only NIfTI-1 is read: save it as that")
    if length not in _NIFTI_1:
        beginning = content[:24].removeprefix(codecs.BOM_UTF8)
        words = " ".join(beginning.decode("ascii", "replace").split())
        if words and beginning.isascii() and words.isprintable():
            raise OSError(f"is no NIfTI file but text that begins with {words!r}: download it again")
        raise OSError("is no NIfTI file")
    if len(content) < _HEADER_ONLY:
        raise OSError(f"is truncated: {len(content)} bytes, not even a header: download it again")
