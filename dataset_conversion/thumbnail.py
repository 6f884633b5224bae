"""A small picture of one axial slice of a case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Thumbnail:
    """One axial slice as `factorizer_nnunet.imaging.planes` shows it."""

    image: np.ndarray  # (rows, columns), uint8: 0 and 255 at the 0.5 and 99.5 percentile
    label: np.ndarray  # (rows, columns), uint8: the release's values up to 255, 0 everywhere without a label
