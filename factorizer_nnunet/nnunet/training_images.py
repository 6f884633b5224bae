"""Voxel sizes, extents and orientations of a model's training images, from its copy of nnU-Net's fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.core.json_files import json_or_none
from factorizer_nnunet.core.wording import lengths, short
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE

ORIENTATIONS_KEY = "factorizer_orientations"  # entry that our trainer adds to the copy: codes such as LPS
Ranges = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class TrainingImages:
    """Smallest and largest of the training images along the axes of the image reader; empty where not known.

    Attributes:
        spacing_mm, size_mm: of the images, these after nnU-Net's crop to nonzero voxels.
        orientations: where their axes lead, such as LPS.
    """

    spacing_mm: Ranges = ()
    size_mm: Ranges = ()
    orientations: tuple[str, ...] = ()

    def unlike(
        self, spacing_mm: Sequence[float], size_mm: Sequence[float], spacing_slack: float, size_slack: float
    ) -> list[str]:
        """How an image is unlike them, in words.

        Args:
            spacing_mm, size_mm: of the image, in the same order and cropped in the same way.
            spacing_slack, size_slack: factors beyond the smallest and the largest that are still usual.
        """
        return [
            f"{what} {lengths(values)} mm, in the training {_shown_ranges(ranges)} mm"
            for what, values, ranges, slack in (
                ("voxels of", spacing_mm, self.spacing_mm, spacing_slack),
                ("an extent without empty borders of", size_mm, self.size_mm, size_slack),
            )
            if any(not low / slack <= v <= high * slack for v, (low, high) in zip(values, ranges, strict=False))
        ]


def training_images(model: Path) -> TrainingImages:
    """The ranges and orientations in a model folder's copy of the fingerprint."""
    content = json_or_none(model / FINGERPRINT_FILE)
    codes = content.get(ORIENTATIONS_KEY) if isinstance(content, dict) else None
    orientations = tuple(map(str, codes)) if isinstance(codes, list) else ()
    try:
        spacings = np.array(content["spacings"], float)
        sizes = np.array(content["shapes_after_crop"], float) * spacings
        low, high = spacings.min(axis=0), spacings.max(axis=0)
        small, large = sizes.min(axis=0), sizes.max(axis=0)
    except (KeyError, TypeError, ValueError):
        return TrainingImages(orientations=orientations)
    return TrainingImages(_pairs(low, high), _pairs(small, large), orientations)


def orientation_of_properties(properties: Mapping[str, Any]) -> str | None:
    """Where the axes of an image lead, such as LPS: x to the left, y to the back, z up; the nearest ones if oblique.

    Args:
        properties: as nnU-Net's readers return them.

    Returns:
        None for images without three axes, and of readers that do not keep SimpleITK's header.
    """
    direction = properties.get("sitk_stuff", {}).get("direction", ())
    if len(direction) != 9:
        return None
    code: str = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction)
    return code


def _pairs(low: np.ndarray, high: np.ndarray) -> Ranges:
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))


def _shown_ranges(ranges: Ranges) -> str:
    return " × ".join(short(low) if low == high else f"{short(low)} to {short(high)}" for low, high in ranges)
