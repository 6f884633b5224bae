"""What one image or label file contains, as nnU-Net will see it: read once, in a worker process.

Facts are values that a record can keep. What follows from them is decided by ``rules``, which reads no files, so that
a second check needs no voxels.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.imaging.checks import is_faint
from factorizer_nnunet.imaging.grid import Grid, grid_from_sitk
from factorizer_nnunet.imaging.labels import INTEGER_TOLERANCE, count_labels
from factorizer_nnunet.imaging.payload import missing_payload, nifti_header
from factorizer_nnunet.imaging.volume import read_beginning, read_volume

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MAX_LABEL_VALUES = 1000  # distinct values of a label file that are listed; more are a file of intensities
_LARGEST_LABEL = 2**31 - 1
_EXAMPLES = 3


@dataclass(frozen=True)
class FileFacts:
    """What a file contains. A file that cannot be read has only ``error``.

    ``values`` counts the voxels of each value of a label file; it is None for images, and for label files with so many
    values that they are not labels.
    """

    error: str = ""
    channels: int = 0
    shape: tuple[int, ...] = ()  # spatial, in nnU-Net's order (z, y, x)
    spacing: tuple[float, ...] = ()  # mm, in the same order
    grid: Grid | None = None  # None where the format has no geometry, or for 2D files
    stored_type: str = ""  # numpy's name for the type that the file stores
    not_finite: int = 0  # voxels that are NaN or infinite, or become infinite in float32
    constant_channels: tuple[tuple[int, float], ...] = ()  # channel and its only value
    overflowing_channels: tuple[int, ...] = ()  # whose mean or deviation is not finite in float32
    faint_channels: tuple[int, ...] = ()  # which nnU-Net's normalisation makes nearly constant
    values: dict[int, int] | None = None
    fractional: int = 0  # voxels of a label file whose value is not an integer
    fractional_examples: tuple[float, ...] = ()
    only_rounding: bool = False  # whether these values are next to integers, as arithmetic with floats leaves them


def read_facts(path: Path, reader: str, is_label: bool) -> FileFacts:
    """Read a file and look at every voxel. Never raises for a bad file: ``error`` says what is wrong with it."""
    try:
        array, spacing, grid, stored_type = _read(path, reader)
    except MemoryError:
        return FileFacts(error="does not fit into memory")
    except Exception as error:  # readers of many formats raise exceptions of many kinds
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        return FileFacts(error=lines[-1] if lines else type(error).__name__)
    facts = {
        "channels": array.shape[0],
        "shape": tuple(array.shape[1:]),
        "spacing": tuple(float(size) for size in spacing),
        "grid": grid,
        "stored_type": stored_type,
    }
    return _label_facts(array, facts) if is_label else _image_facts(array, facts)


def _image_facts(array: np.ndarray, facts: dict) -> FileFacts:
    not_finite = 0
    constant, overflowing, faint = [], [], []
    for number, channel in enumerate(array):
        low, high = float(channel.min()), float(channel.max())
        if not (math.isfinite(low) and math.isfinite(high)) or max(-low, high) > _FLOAT32_MAX:
            with np.errstate(over="ignore"):
                not_finite += int(np.count_nonzero(~np.isfinite(channel.astype(np.float32))))
        elif low == high:
            constant.append((number, low))
        elif _overflows(channel, low, high):
            overflowing.append(number)
        elif is_faint(channel):
            faint.append(number)
    return FileFacts(
        **facts,
        not_finite=not_finite,
        constant_channels=tuple(constant),
        overflowing_channels=tuple(overflowing),
        faint_channels=tuple(faint),
    )


def _overflows(channel: np.ndarray, low: float, high: float) -> bool:
    """Whether mean or deviation are not finite in float32, in which nnU-Net normalises."""
    if max(-low, high, high - low) ** 2 * channel.size <= _FLOAT32_MAX:  # neither is any sum of squares
        return False
    with np.errstate(all="ignore"):
        values = channel.astype(np.float32)
        return not (np.isfinite(values.mean()) and np.isfinite(values.std()))


def _label_facts(array: np.ndarray, facts: dict) -> FileFacts:
    values = array
    if array.dtype.kind == "f":
        not_finite = int(np.count_nonzero(~np.isfinite(array)))
        if not_finite:
            return FileFacts(**facts, not_finite=not_finite)
        values = array.astype(np.float32)  # as nnU-Net reads labels; it then cuts off what follows the point
        rounded = np.trunc(values)
        wrong = values != rounded
        if wrong.any():
            fractional = values[wrong]
            return FileFacts(
                **facts,
                fractional=fractional.size,
                fractional_examples=tuple(float(value) for value in np.unique(fractional)[:_EXAMPLES]),
                only_rounding=bool((np.abs(fractional - np.rint(fractional)) <= INTEGER_TOLERANCE).all()),
            )
        if np.abs(values).max() > _LARGEST_LABEL:
            return FileFacts(**facts)
        values = values.astype(np.int32)
    counts = count_labels(values)
    return FileFacts(**facts, values=counts if len(counts) <= _MAX_LABEL_VALUES else None)


def _read(path: Path, reader: str) -> tuple[np.ndarray, Sequence[float], Grid | None, str]:
    """Values (channels, z, y, x) or a view of them, spacing (z, y, x) in mm, grid and stored type.

    Raises:
        Exception: of many kinds, for a file that cannot be read or is not complete.
    """
    if path.name.lower().endswith((".nii", ".nii.gz")) and not _only_nnunet_reads(path):
        volume = read_volume(path)
        if unusable := [repair for repair in volume.repairs if not repair.startswith("shape ")]:
            raise OSError(unusable[0].split(":")[0])
        values = volume.values.transpose()  # (z, y, x), or (t, z, y, x) of a series: one channel each
        values = values[None] if volume.series is None else values
        return values, volume.grid.spacing[::-1], volume.grid, volume.stored.dtype.name
    if problem := missing_payload(path):
        raise OSError(problem)
    # Imported only here: NIfTI files, which most datasets have, need none of nnU-Net in each worker process.
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    with _loud_as_errors():
        array, properties = recursive_find_reader_writer_by_name(reader)().read_images((os.fspath(path),))
    grid, stored_type = _grid(path) if "sitk_stuff" in properties else (None, "")
    return array, properties["spacing"], grid, stored_type


def _only_nnunet_reads(path: Path) -> bool:
    """Whether a NIfTI file is of a form that ``read_volume`` does not read but nnU-Net does: version 2, or 2D."""
    try:
        header = nifti_header(read_beginning(path, nibabel.Nifti2Header.sizeof_hdr))
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return False
    if header is None or isinstance(header, nibabel.Nifti2Header):
        return header is not None
    shape = header.get_data_shape()
    return len(shape) >= 2 and all(size == 1 for size in shape[2:])


def _grid(path: Path) -> tuple[Grid | None, str]:
    """The grid of a file that SimpleITK reads, None for 2D, and the name of the type that it stores."""
    file = sitk.ImageFileReader()
    file.SetFileName(os.fspath(path))
    file.ReadImageInformation()
    stored_type = sitk.GetPixelIDValueAsString(file.GetPixelID())
    return grid_from_sitk(file), stored_type


class _Raiser(logging.Handler):
    """Raises what a library only logs; tifffile logs a truncated file and returns what it has of it."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError(record.getMessage())


@contextlib.contextmanager
def _loud_as_errors() -> Iterator[None]:
    """Let readers raise what they would log, and print nothing: nnU-Net's print a warning for each file."""
    log, handler = logging.getLogger("tifffile"), _Raiser(logging.WARNING)
    log.addHandler(handler)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.removeHandler(handler)
