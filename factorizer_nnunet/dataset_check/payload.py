"""Whether a file has all the voxels that its header promises, for formats whose readers fill up what is missing.

ITK reads a truncated NIfTI or GIPL file without complaint and leaves zeros, or what the memory held, in the rest.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

_GIPL_HEADER_BYTES = 256  # GIPL: sizes as four 16-bit numbers at 0, the type at 8, voxel sizes at 10; all big-endian
_GIPL_TYPE_BYTES = {1: 1 / 8, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
_NIFTI_HEADER_BYTES = {348: "<", 540: "<"}
_NIFTI_2_BYTES = 540


def missing_payload(path: Path) -> str | None:
    """What is wrong with a NIfTI or GIPL file that is shorter than its header says; None if nothing, or other formats.

    Raises:
        OSError: the file cannot be read.
    """
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz", ".gipl")):
        return None
    try:
        content = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"is a truncated or damaged gzip file ({error})"
    try:
        needed = _gipl_bytes(content) if name.endswith(".gipl") else _nifti_bytes(content)
    except (struct.error, KeyError):
        return "has a damaged header"
    if len(content) < needed:
        return f"is truncated: {len(content)} bytes, {needed} according to its header"
    return None


def _gipl_bytes(content: bytes) -> int:
    sizes, kind = struct.unpack_from(">4H", content), struct.unpack_from(">H", content, 8)[0]
    voxel_mm = struct.unpack_from(">3f", content, 10)
    if not all(math.isfinite(size) and size > 0 for size in voxel_mm):
        raise OSError(f"has a header with voxels of {' × '.join(f'{size:g}' for size in voxel_mm)} mm")
    return _GIPL_HEADER_BYTES + math.ceil(math.prod(max(size, 1) for size in sizes) * _GIPL_TYPE_BYTES[kind])


def _nifti_bytes(content: bytes) -> int:
    """Header and voxels of NIfTI-1 or NIfTI-2 in either byte order."""
    order = next(o for o in "<>" if struct.unpack_from(f"{o}i", content)[0] in _NIFTI_HEADER_BYTES) if content else "<"
    if struct.unpack_from(f"{order}i", content)[0] == _NIFTI_2_BYTES:
        dims, bits, offset = (
            struct.unpack_from(f"{order}{form}", content, at) for form, at in (("8q", 16), ("h", 14), ("q", 168))
        )
    else:
        dims, bits, offset = (
            struct.unpack_from(f"{order}{form}", content, at) for form, at in (("8h", 40), ("h", 72), ("f", 108))
        )
    voxels = math.prod(max(size, 1) for size in dims[1 : 1 + min(max(dims[0], 0), 7)])
    return int(offset[0]) + voxels * bits[0] // 8
