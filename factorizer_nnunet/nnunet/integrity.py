"""Whether a file that a killed command may have left is complete."""

from __future__ import annotations

import contextlib
import gzip
import os
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.names import SPLITS_FILE

_PICKLE_STOP = b"."
_FRAME_MAGIC, _FRAME_SIZE = slice(2, 10), slice(16, 24)  # bytes in the header of a blosc2 file


def is_complete(path: Path) -> bool:
    """Whether a file exists and has its end, judged without reading all of it.

    The ends of zip (``.pth``, ``.npz``), pickle and JSON files and the length of blosc2 files are checked; other files
    must not be empty.

    Raises:
        UserError: a JSON file is damaged in another way than by a kill.
    """
    try:
        if not path.is_file():  # missing, or a named pipe, on which reading would wait forever
            return False
        if path.suffix in (".pth", ".npz"):  # zip files: their directory is written last
            return zipfile.is_zipfile(path)
        if path.suffix == ".pkl":
            with path.open("rb") as stream:
                stream.seek(-1, os.SEEK_END)
                return stream.read() == _PICKLE_STOP
        if path.suffix == ".b2nd":
            return path.stat().st_size == _length_of_frame(path)
        if path.suffix == ".json":
            return read_complete_json(path, list if path.name == SPLITS_FILE else dict) is not None
        return path.stat().st_size > 0
    except OSError:  # missing, or empty where an end was sought
        return False


def _length_of_frame(path: Path) -> int | None:
    """The length in bytes that a blosc2 file states in its header; None if it is not one.

    Format: https://www.blosc.org/c-blosc2/format/cframe_format.html (frame_size, big-endian).
    """
    with path.open("rb") as stream:
        header = stream.read(_FRAME_SIZE.stop)
    return int.from_bytes(header[_FRAME_SIZE], "big") if header[_FRAME_MAGIC] == b"b2frame\0" else None


def is_preprocessed(folder: Path, case: str) -> bool:
    """Whether a folder of preprocessed data has a case's data, segmentation and, written last, properties."""
    data = [folder / f"{case}.b2nd", folder / f"{case}_seg.b2nd"]
    if not data[0].exists():
        data = [folder / f"{case}.npz"]  # nnU-Net's older format
    return is_complete(folder / f"{case}.pkl") and all(is_complete(file) for file in data)


def zip_damage(path: Path) -> str | None:
    """What is wrong with a zip file (also ``.pth`` and ``.npz``), checked by its checksums; None if nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        return str(error)
    return None if damaged is None else f"the checksum of {damaged} does not fit"


def gzip_damage(path: Path) -> str | None:
    """What is wrong with a gzip file, read up to its checksum; None if nothing."""
    try:
        with gzip.open(path) as stream:
            while stream.read(2**20):
                pass
    except (EOFError, OSError, zlib.error) as error:
        return str(error)
    return None


def newest(paths: Iterable[Path]) -> float:
    """The latest modification time among files, in seconds since the epoch; 0 if none exists."""
    times = [0.0]
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            times.append(path.stat().st_mtime)
    return max(times)


def oldest(paths: Iterable[Path]) -> float:
    """The earliest modification time among files, which must all exist; 0 if there are none."""
    return min((path.stat().st_mtime for path in paths), default=0.0)
