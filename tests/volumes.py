"""Small cases, their release, and a head-like image, for tests of checking and writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from nifti_files import axes, write
from scipy.ndimage import gaussian_filter

from factorizer_nnunet.dataset_conversion.cases import SourceCase
from factorizer_nnunet.dataset_conversion.spec import Channel, LabelMap, LabelScheme, Release

SHAPE = (8, 10, 6)
SPACING = (1.0, 1.5, 3.0)
OBLIQUE = axes(SPACING, degrees=20)
SCHEME = LabelScheme(
    LabelMap({0: 0, 2: 1, 1: 2, 4: 3}),
    {"whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing tumor": (3,)},
    regions_class_order=(1, 2, 3),
)
CHANNELS = (Channel("T1", "{case}_t1"), Channel("T2", "{case}_t2"))


def release(channels: tuple[Channel, ...] = CHANNELS, **changes: Any) -> Release:
    """A release with these channels; `changes` are values of other fields."""
    values: dict[str, Any] = {
        "key": "small",
        "title": "Small",
        "case": "case",
        "channels": channels,
        "label": ("{case}_seg",),
        "schemes": (SCHEME,),
        "root": "small",
        "unlabelled": "test",
        "submission": "{case}.nii.gz",
        "example": "case/case_t1.nii.gz",
        "licence": "none",
        "reference": "nowhere",
    }
    return Release(**{**values, **changes})


def image_values(seed: int = 0, shape: tuple[int, ...] = SHAPE, dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 900, shape).astype(dtype)


def label_values() -> np.ndarray:
    """Values 1, 2 and 4 on 3, 8 and 5 voxels, most of them in the third slice."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 2:5, 2], labels[3, 1:9, 2], labels[4, 4:9, 3] = 1, 2, 4
    return labels


def case_in(folder: Path, *, label: np.ndarray | None = None, **how: Any) -> SourceCase:
    """A case with two valid channels and a label on an oblique grid; `how` is passed to the label's writer."""
    images = tuple(write(folder / f"case_{t}.nii.gz", image_values(k), OBLIQUE) for k, t in enumerate(("t1", "t2")))
    values = label_values() if label is None else label
    path = write(folder / "case_seg.nii.gz", values, **{"affine": OBLIQUE, **how})
    return SourceCase("case", images, path, "case", "")


def phantom(
    size: tuple[int, int, int], spacing: tuple[float, float, float], motion: sitk.Transform | None = None
) -> sitk.Image:
    """A head-like ellipsoid with structure at all scales, about 130 × 160 × 110 mm, on a grid centred on 0.

    `motion` maps points of the returned image to points of the head.
    """
    fine = np.random.default_rng(5).normal(size=(60, 80, 80))
    structure = sum(gaussian_filter(fine, s) * s**1.5 for s in (1.5, 3, 6))
    z, y, x = np.ogrid[-1:1:60j, -1:1:80j, -1:1:80j]
    inside = (x / 0.82) ** 2 + y**2 + (z / 0.92) ** 2 < 0.9
    head = sitk.GetImageFromArray(((500 + 300 * structure) * inside).astype(np.float32))
    head.SetSpacing((2.0, 2.2, 2.0))
    head.SetOrigin((-79.0, -86.9, -59.0))
    grid = sitk.Image(size, sitk.sitkFloat32)
    grid.SetSpacing(spacing)
    grid.SetOrigin([-(n - 1) * s / 2 for n, s in zip(size, spacing, strict=True)])
    return sitk.Resample(head, grid, motion or sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear, 0.0)
