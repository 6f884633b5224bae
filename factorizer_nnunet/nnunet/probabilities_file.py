"""nnU-Net's files of probabilities, ``CASE.npz``, read class by class: those of many classes do not fit into memory."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from factorizer_nnunet.nnunet.dataset_json import IGNORE, DatasetJson

PROBABILITIES_ENDING = ".npz"
_MEMBER = "probabilities.npy"


def read_probabilities(file: Path) -> Iterator[np.ndarray]:
    """Yield the probabilities of each class or region, (x, y, z), in nnU-Net's order; nothing in the file is executed.

    nnU-Net's readers reverse the axes, which is undone here; a 2D image has a single slice.

    Raises:
        OSError: the file cannot be read, is damaged, or has no array of probabilities.
    """
    try:
        with zipfile.ZipFile(file) as archive, archive.open(_MEMBER) as member:
            version = np.lib.format.read_magic(member)
            read_header = np.lib.format.read_array_header_2_0 if version > (1, 0) else _read_header_1_0
            (count, *shape), is_fortran, dtype = read_header(member)
            if len(shape) not in (2, 3) or is_fortran or dtype.kind != "f":
                raise OSError(f"{file}: expected floating-point probabilities (classes, z, y, x), not {dtype} {shape}")
            shape = [1, *shape][-3:]
            size = math.prod(shape) * dtype.itemsize
            for _ in range(count):
                content = member.read(size)
                if len(content) != size:
                    raise OSError(f"{file}: is shorter than its header says")
                yield np.frombuffer(content, dtype).reshape(shape).transpose(2, 1, 0)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        raise OSError(
            f"{file}: cannot be read as probabilities of nnU-Net ({error}). Remove it, or validate the fold again with "
            "nnUNetv2_train … --val --npz"
        ) from error


def regions_of_outputs(dataset: DatasetJson) -> dict[int, int]:
    """The place among ``DatasetJson.regions`` of each of nnU-Net's outputs, without background."""
    regions = dataset.regions
    if any(len(values) > 1 for values in regions.values()):
        return {place: place for place in range(len(regions))}
    values = sorted({labels[0] for name, labels in dataset.labels.items() if name != IGNORE} | {0})
    return {values.index(labels[0]): place for place, labels in enumerate(regions.values())}


_read_header_1_0 = np.lib.format.read_array_header_1_0
