"""Whether a file has all the voxels that its header promises, for formats whose readers fill up what is missing.

ITK reads a truncated NIfTI or GIPL file without complaint and leaves zeros, or what the memory held, in the rest.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np

from factorizer_nnunet.core.wording import count_of

_GIPL_HEADER_BYTES = 256  # GIPL: sizes as four 16-bit numbers at 0, the type at 8, voxel sizes at 10; all big-endian
_GIPL_TYPE_BYTES = {1: 1 / 8, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}

_COPY = "Copy or export it again"
_GZIP = b"\x1f\x8b"  # begins every gzip file
_EXTENSION_BYTES = 4  # between the header of a NIfTI file and its voxels, at least
_NUMBERS = (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280)  # NIfTI's types of voxels that ITK reads: one real number each
_NOT_ONE_NUMBER = {  # by the type of voxels in NIfTI
    **dict.fromkeys((32, 1792, 2048), "complex"),
    **dict.fromkeys((128, 2304), "RGB"),
}


def missing_payload(path: Path) -> str | None:
    """What is wrong with a NIfTI or GIPL file that is shorter than its header says; None if nothing, or other formats.

    Raises:
        OSError: the file cannot be read.
    """
    return _problem(path, with_values=False)


def payload_problem(path: Path) -> str | None:
    """As ``missing_payload``, and what ITK reads from a NIfTI file without complaint, and wrongly.

    NaN and infinite voxels become 0, a missing voxel size 1 mm, the parts of complex numbers and colours more channels.

    Raises:
        OSError: the file cannot be read.
    """
    return _problem(path, with_values=True)


def _problem(path: Path, with_values: bool) -> str | None:
    if path.is_dir():
        return "is a folder"
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz", ".gipl")):
        return None
    content = path.read_bytes()
    if name.endswith(".gz") and content and not content.startswith(_GZIP):
        return "is not compressed, although it ends with .gz: give it the ending of its format, or save it again"
    try:
        content = gzip.decompress(content) if name.endswith(".gz") else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"is a truncated or damaged gzip file ({error}). {_COPY}"
    if not content:
        return f"is empty. {_COPY}"
    try:
        needed = _gipl_bytes(content) if name.endswith(".gipl") else _nifti_bytes(content)
    except (KeyError, OverflowError, StopIteration, ValueError, struct.error):
        return f"has a damaged header. {_COPY}"
    except OSError as error:
        return str(error)
    if len(content) < needed:
        return f"is truncated: {len(content)} bytes, {needed} according to its header. {_COPY}"
    if not with_values or name.endswith(".gipl"):
        return None
    return _read_wrongly(content) or _not_finite(content, needed)


def _read_wrongly(content: bytes) -> str | None:
    """What the header of a NIfTI file says that ITK does not keep to."""
    header = nifti_header(content)
    if header is None:
        return None
    axes = min(int(header["dim"][0]), 3)
    sizes = [int(size) for size in header["dim"][1 : axes + 1]]
    if not sizes or min(sizes) < 1:
        return f"has a header with {' × '.join(map(str, sizes)) or 'no'} voxels. Correct its dim"
    code = int(header["datatype"])
    kind = _NOT_ONE_NUMBER.get(code)
    if kind is None and code not in _NUMBERS:
        return f"has a header with voxels of an unknown type ({code}). Correct its datatype, or save it again"
    if int(header["dim"][0]) >= 5 and int(header["dim"][5]) > 1:  # the fifth axis is that of vectors
        kind = "vector or RGB"
    if kind is not None:
        return f"has {kind} voxels; an image has one number in each. Save each channel as a file of its own"
    voxel_mm = [float(mm) for mm in header["pixdim"][1 : axes + 1]]
    if not all(math.isfinite(mm) and mm > 0 for mm in voxel_mm):
        return f"has a header with voxels of {' × '.join(f'{mm:g}' for mm in voxel_mm)} mm. Correct its pixdim"
    return None


def _not_finite(content: bytes, end: int) -> str | None:
    header = nifti_header(content)
    kind = None if header is None else header.get_data_dtype()
    if header is None or kind is None or kind.kind != "f":
        return None
    start = int(header["vox_offset"])
    values = np.frombuffer(content, kind, (end - start) // kind.itemsize, start)
    number = int(np.count_nonzero(~np.isfinite(values)))
    return f"has {count_of(number, 'voxel')} that {'is' if number == 1 else 'are'} NaN or infinite" if number else None


def _gipl_bytes(content: bytes) -> int:
    sizes, kind = struct.unpack_from(">4H", content), struct.unpack_from(">H", content, 8)[0]
    voxel_mm = struct.unpack_from(">3f", content, 10)
    if not all(math.isfinite(size) and size > 0 for size in voxel_mm):
        raise OSError(f"has a header with voxels of {' × '.join(f'{size:g}' for size in voxel_mm)} mm")
    return _GIPL_HEADER_BYTES + math.ceil(math.prod(max(size, 1) for size in sizes) * _GIPL_TYPE_BYTES[kind])


def nifti_header(content: bytes) -> nibabel.Nifti1Header | None:
    """The header of a NIfTI file of either version, as it is; None for other files."""
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        block = content[: kind.sizeof_hdr]
        if kind.may_contain_header(block):
            return kind(block, check=False)
    return None


def _nifti_bytes(content: bytes) -> int:
    """Header and voxels of NIfTI-1 or NIfTI-2."""
    header = nifti_header(content)
    if header is None:
        raise OSError(f"has a damaged header. {_COPY}")
    start, least = int(header["vox_offset"]), int(header.sizeof_hdr) + _EXTENSION_BYTES
    if bytes(header["magic"]).startswith(b"n+") and start < least:  # ITK reads them right after the header
        raise OSError(f"has a header that lets its voxels begin at byte {start}; they cannot before {least}")
    voxels = math.prod(max(size, 1) for size in header.get_data_shape())
    return start + voxels * int(header["bitpix"]) // 8
