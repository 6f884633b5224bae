"""Typical voxel size and image size of a data set, determined without writing anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.dataset_check.raw import RawDataset

MAX_CASES_READ = 8  # evenly spread; a first look does not need all of them


@dataclass(frozen=True)
class ImageGeometry:
    """Medians over cases; axes in nnU-Net's reading order (z, y, x for most formats)."""

    num_channels: int
    spacing: list[float]  # voxel size in mm
    shape: list[float]  # voxels; 1 along the first axis of 2D images


def typical_image(raw: RawDataset, fingerprint_file: Path | None) -> ImageGeometry:
    """Geometry of the images, from the fingerprint if it exists, otherwise from some of the files.

    Args:
        raw: the data set.
        fingerprint_file: nnU-Net's ``dataset_fingerprint.json``, which may be missing; its shapes are those after
            cropping. None always reads the images.

    Raises:
        UserError: a file cannot be read.
    """
    if fingerprint_file is not None and fingerprint_file.is_file():
        fingerprint = load_json_object(fingerprint_file, "Compute it again with --clean")
        spacings, shapes = fingerprint["spacings"], fingerprint["shapes_after_crop"]
    else:
        spacings, shapes = _read(raw)
    return ImageGeometry(
        raw.num_channels,
        [float(mm) for mm in np.median(spacings, axis=0)],
        [float(size) for size in np.median(shapes, axis=0)],
    )


def _read(raw: RawDataset) -> tuple[list[Sequence[float]], list[Sequence[int]]]:
    """Spacings and shapes of some cases, from the first channel of each, uncropped."""
    chosen = np.linspace(0, raw.num_cases - 1, min(MAX_CASES_READ, raw.num_cases), dtype=int)
    reader = recursive_find_reader_writer_by_name(raw.reader)()
    spacings, shapes = [], []
    for number in chosen:
        file = raw.cases[number].images[0]
        try:
            image, properties = reader.read_images([str(file)])
        except Exception as error:  # the exceptions depend on the image library
            raise UserError(f"{file} cannot be read ({error}). Replace it") from error
        spacings.append(properties["spacing"])
        shapes.append(image.shape[1:])
    return spacings, shapes
