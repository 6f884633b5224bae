"""Read label files in every format that nnU-Net reads: NIfTI strictly, others with the library that nnU-Net uses."""

from __future__ import annotations

import json
import logging
import math
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.imaging.checks import count_not_finite, unexpected_labels_problem
from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.imaging.labels import count_labels, integer_labels
from factorizer_nnunet.imaging.volume import read_volume

NIFTI = (".nii.gz", ".nii")
NATURAL = (".png", ".bmp")  # 2D images without voxel size
TIFF = (".tif", ".tiff")
PIXELS = (*NATURAL, *TIFF)
ENDINGS = (*NIFTI, ".mha", ".mhd", ".nrrd", ".gipl", *PIXELS)


@dataclass(frozen=True)
class LabelImage:
    """A label file: integers (x, y, z), or (x, y) of a 2D image, and their grid, which always has three axes."""

    labels: np.ndarray
    grid: Grid  # voxel sizes without the rounding of float32


def ending_of(name: str) -> str | None:
    """The ending of a label file, as it is written in the name; None for other files."""
    found = next((ending for ending in ENDINGS if name.lower().endswith(ending)), None)
    return None if found is None else name[-len(found) :]


def read_labels(path: Path) -> LabelImage:
    """Read a label file.

    Raises:
        OSError: it cannot be read, or is not a 2D or 3D image of integers.
    """
    name = path.name.lower()
    try:
        if name.endswith(NIFTI):
            volume = read_volume(path, flat=True)
            if volume.series is not None:
                raise OSError(f"contains {volume.series} images, expected one image of labels")
            values, grid = volume.values[..., 0] if volume.flat else volume.values, volume.grid
        elif name.endswith(PIXELS):
            values, grid = read_pixels(path)
        else:
            values, grid = _read_with_sitk(path)
    except MemoryError as error:
        raise OSError("does not fit into memory") from error
    if count_not_finite(values):
        raise OSError("contains NaN or infinity")
    try:
        return LabelImage(integer_labels(values), replace(grid, spacing=grid.spacing_mm))
    except ValueError as error:
        raise OSError(str(error)) from error


def read_declared(path: Path, declared: Iterable[int | None]) -> LabelImage:
    """Read a label file that may only contain the values of dataset.json; None among them is not a value.

    Raises:
        OSError: it cannot be read, or contains others; the text begins with the file.
    """
    try:
        image = read_labels(path)
    except OSError as error:
        raise OSError(f"{path}: {error}") from error
    values = {value for value in declared if value is not None}
    problem = unexpected_labels_problem(count_labels(image.labels), values, "dataset.json")
    if problem is not None:
        raise OSError(f"{path}: {problem}")
    return image


def _read_with_sitk(path: Path) -> tuple[np.ndarray, Grid]:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise OSError(f"cannot be read: {str(error).strip().splitlines()[-1]}") from error
    if image.GetDimension() not in (2, 3) or image.GetNumberOfComponentsPerPixel() != 1:
        raise OSError("is not a single 2D or 3D image with one value per voxel")
    values = sitk.GetArrayViewFromImage(image).T.copy(order="K")
    if values.dtype.kind not in "iuf":
        raise OSError(f"has voxels of type {values.dtype}, expected one real number per voxel")
    deep = sitk.JoinSeries(image) if image.GetDimension() == 2 else image
    return values, Grid(deep.GetSize(), deep.GetSpacing(), deep.GetOrigin(), deep.GetDirection())


def read_pixels(path: Path, is_image: bool = False) -> tuple[np.ndarray, Grid]:
    """A PNG, BMP or TIFF file as nnU-Net reads it: (x, y), or (x, y, z) of a 3D TIFF, and its grid.

    Pixels are 1 mm large, unless nnU-Net's file CASE.json next to a 3D TIFF states other sizes.

    Args:
        path: the file.
        is_image: a channel CASE_0000 rather than labels; of a colour image, the brightness is read.

    Raises:
        OSError: it cannot be read, or has another shape.
    """
    # Imported here: the other formats do not need them.
    import tifffile
    from skimage import io

    is_tiff = path.name.lower().endswith(TIFF)
    log = logging.getLogger("tifffile")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it logs about damaged files would have no file name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # scikit-image takes a volume of 3 or 4 slices for a colour image and moves its axes.
            pixels = np.asarray(tifffile.imread(path) if is_tiff else io.imread(path))
    except MemoryError:
        raise
    except Exception as error:  # the readers of these formats raise exceptions of many kinds
        raise OSError(f"cannot be read: {(str(error).strip() or type(error).__name__).splitlines()[-1]}") from error
    finally:
        log.setLevel(level)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if is_image and pixels.ndim == 3 and pixels.shape[-1] in (3, 4):
        pixels = pixels[..., :3].mean(axis=-1)
    if pixels.ndim not in ((2, 3) if is_tiff else (2,)) or not pixels.size or pixels.dtype.kind not in "iuf":
        raise OSError(f"has pixels of shape {pixels.shape}, expected one grey value per pixel: is it a colour image?")
    values = pixels.T
    spacing = _tiff_spacing(path, is_image) if values.ndim == 3 else (1.0, 1.0, 1.0)
    size = (*values.shape, 1)[:3]
    return values, Grid(size, spacing, (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))


def _tiff_spacing(path: Path, is_image: bool) -> tuple[float, float, float]:
    """Voxel size along x, y, z from nnU-Net's file next to a 3D TIFF, which lists them as z, y, x; else 1 mm."""
    name = re.sub(r"_\d{4}$", "", path.stem) if is_image else path.stem
    file = path.with_name(f"{name}.json")
    if not file.is_file():
        return 1.0, 1.0, 1.0
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        z, y, x = (float(size) for size in content["spacing"])
    except (KeyError, OSError, TypeError, ValueError, RecursionError) as error:
        raise OSError(f'has no valid voxel size in {file}: expected {{"spacing": [z, y, x]}}') from error
    if not all(math.isfinite(size) and size > 0 for size in (x, y, z)):
        raise OSError(f"has an invalid voxel size in {file}: {z:g}, {y:g}, {x:g}")
    return x, y, z
