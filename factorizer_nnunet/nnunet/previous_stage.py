"""Segmentations of a low-resolution model that a cascade refines: nnU-Net writes one per case when it validates."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_ENDINGS = (".b2nd", ".npz")  # the second in nnU-Net's older format


def segmentation_files(folder: Path, cases: Iterable[str]) -> dict[str, Path]:
    """The file of each case that has one, by the case's name.

    Args:
        folder: ``ModelFolder.next_stage``.
        cases: their names.
    """
    files = ((case, folder / f"{case}{ending}") for case in cases for ending in reversed(_ENDINGS))
    return {case: file for case, file in files if file.is_file()}


def digest_of_segmentation(file: Path) -> str:
    """SHA-256 of the voxels, since threads order blosc2's blocks differently each time; of a damaged file, its bytes.

    Raises:
        OSError: the file does not exist.
    """
    status = file.stat()
    return _digest(os.fspath(file), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=2**16)
def _digest(path: str, size: int, modified_ns: int) -> str:
    """Kept for as long as size and time stay, since a training asks when it loads a checkpoint and when it starts."""
    import blosc2  # takes a second to import

    try:
        if path.endswith(".npz"):
            with np.load(path, allow_pickle=False) as arrays:
                voxels = np.asarray(arrays["seg"])
        else:
            voxels = np.asarray(blosc2.open(path, mode="r")[:])
    except Exception:  # whatever blosc2 and zip raise on random bytes
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    digest = hashlib.sha256(f"{voxels.dtype} {voxels.shape}".encode())
    digest.update(np.ascontiguousarray(voxels).data)
    return digest.hexdigest()
