"""Read label files: NIfTI strictly, and other formats that store the spacing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.imaging.checks import count_not_finite
from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.imaging.labels import integer_labels
from factorizer_nnunet.imaging.volume import read_volume

NIFTI = (".nii.gz", ".nii")
ENDINGS = (*NIFTI, ".mha", ".mhd", ".nrrd")


@dataclass(frozen=True)
class LabelImage:
    """A label file: integers (x, y, z) and their grid."""

    labels: np.ndarray
    grid: Grid


def read_labels(path: Path) -> LabelImage:
    """Read a label file.

    Raises:
        OSError: it cannot be read, or is not a 3D image of integers.
    """
    if path.name.endswith(NIFTI):
        volume = read_volume(path)
        if volume.series is not None:
            raise OSError(f"contains {volume.series} images, expected one image of labels")
        values, grid = volume.values, volume.grid
    else:
        values, grid = _read_with_sitk(path)
    if count_not_finite(values):
        raise OSError("contains NaN or infinity")
    try:
        return LabelImage(integer_labels(values), grid)
    except ValueError as error:
        raise OSError(str(error)) from error


def _read_with_sitk(path: Path) -> tuple[np.ndarray, Grid]:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise OSError(f"cannot be read: {str(error).strip().splitlines()[-1]}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise OSError("is not a single 3D image")
    grid = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return sitk.GetArrayFromImage(image).T, grid
