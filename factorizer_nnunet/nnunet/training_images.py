"""Voxel sizes and extents of the images that a model was trained with, from its copy of nnU-Net's fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factorizer_nnunet.core.json_files import json_or_none
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE

Ranges = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class TrainingImages:
    """Smallest and largest of the training images along the axes of the image reader; empty where not known."""

    spacing_mm: Ranges = ()
    size_mm: Ranges = ()  # after nnU-Net's crop to nonzero voxels

    def unlike(
        self, spacing_mm: Sequence[float], size_mm: Sequence[float], spacing_slack: float, size_slack: float
    ) -> list[str]:
        """How an image is unlike them, in words.

        Args:
            spacing_mm, size_mm: of the image, in the same order and cropped in the same way.
            spacing_slack, size_slack: factors beyond the smallest and the largest that are still usual.
        """
        return [
            f"{what} {_shown(values)} mm, in the training {_shown_ranges(ranges)} mm"
            for what, values, ranges, slack in (
                ("voxels of", spacing_mm, self.spacing_mm, spacing_slack),
                ("an extent of", size_mm, self.size_mm, size_slack),
            )
            if any(not low / slack <= v <= high * slack for v, (low, high) in zip(values, ranges, strict=False))
        ]


def training_images(model: Path) -> TrainingImages:
    """The ranges in a model folder's copy of the fingerprint."""
    content = json_or_none(model / FINGERPRINT_FILE)
    try:
        spacings = np.array(content["spacings"], float)
        sizes = np.array(content["shapes_after_crop"], float) * spacings
        low, high = spacings.min(axis=0), spacings.max(axis=0)
        small, large = sizes.min(axis=0), sizes.max(axis=0)
    except (KeyError, TypeError, ValueError):
        return TrainingImages()
    return TrainingImages(_pairs(low, high), _pairs(small, large))


def _pairs(low: np.ndarray, high: np.ndarray) -> Ranges:
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))


def _shown(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.3g}" for value in values)


def _shown_ranges(ranges: Ranges) -> str:
    return " × ".join(f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}" for low, high in ranges)
