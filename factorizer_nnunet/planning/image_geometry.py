"""Typical voxel size and image size of a data set, determined without writing anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

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
    dataset_json = raw.description.content
    cases = list(get_filenames_of_train_images_and_targets(str(raw.folder), dataset_json).values())
    chosen = [cases[i] for i in np.linspace(0, len(cases) - 1, min(MAX_CASES_READ, len(cases)), dtype=int)]
    reader = determine_reader_writer_from_dataset_json(dataset_json, cases[0]["images"][0], verbose=False)()
    spacings, shapes = [], []
    for case in chosen:
        file = case["images"][0]
        try:
            image, properties = reader.read_images([file])
        except Exception as error:  # the exceptions depend on the image library
            raise UserError(f"{file} cannot be read ({error}). Replace it") from error
        spacings.append(properties["spacing"])
        shapes.append(image.shape[1:])
    return spacings, shapes
