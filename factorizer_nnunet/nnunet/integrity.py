"""Whether a file that a killed command may have left is complete."""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.nnunet.names import SPLITS_FILE
from factorizer_nnunet.nnunet.older_checkpoints import has_all_storages, is_older_form

_PICKLE_STOP = b"."
_FRAME_MAGIC, _FRAME_SIZE = slice(2, 10), slice(16, 24)  # bytes in the header of a blosc2 file
_ZIP_END_BYTES = 22 + 2**16  # the end of the directory, and the longest comment after it


class Completeness(Enum):
    """What a look at a file shows."""

    MISSING = "missing"
    CUT_OFF = "cut off"
    COMPLETE = "complete"


def is_complete(path: Path) -> bool:
    """Whether a file exists and has its end; raises as ``completeness`` does."""
    return completeness(path) is Completeness.COMPLETE


def completeness(path: Path) -> Completeness:
    """Whether a file exists and has its end, judged without reading all of it.

    The ends of zip (``.pth``, ``.npz``), pickle and JSON files and the length of blosc2 files are checked; other files
    must not be empty.

    Raises:
        UserError: the file cannot be read, which says nothing about its content, or a JSON file is damaged in another
            way than by a kill.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is a folder or a special file instead of a regular one. Move it away")
        complete = status.st_size > 0 and _has_end(path, status.st_size)
    except (FileNotFoundError, NotADirectoryError):
        return Completeness.MISSING
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror or error}); it is left as it is. Correct its permissions, or wait "
            "until its disk answers again, then run the same command again"
        ) from error
    return Completeness.COMPLETE if complete else Completeness.CUT_OFF


def _has_end(path: Path, size: int) -> bool:
    if path.suffix == ".json":
        return read_complete_json(path, list if path.name == SPLITS_FILE else dict) is not None
    with path.open("rb") as stream:
        if path.suffix == ".pkl":
            stream.seek(-1, os.SEEK_END)
            return stream.read() == _PICKLE_STOP
        if path.suffix == ".b2nd":
            return size == _length_of_frame(stream)
        if path.suffix not in (".pth", ".npz"):
            return True
        if is_older_form(stream.read(16)):
            return has_all_storages(stream, size)
        # A zip file's directory is written last. zipfile takes what it cannot read for no zip file, so try that first.
        stream.seek(-min(size, _ZIP_END_BYTES), os.SEEK_END)
        stream.read()
        return zipfile.is_zipfile(stream)


def _length_of_frame(stream: BinaryIO) -> int | None:
    """The length in bytes that a blosc2 file states in its header; None if it is not one.

    Format: https://www.blosc.org/c-blosc2/format/cframe_format.html (frame_size, big-endian).
    """
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
