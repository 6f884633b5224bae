"""Masks to score: drawn as text, or random masks of every awkward kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

SPACINGS = ((1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (2.4, 1.1, 0.9), (0.3, 3.0, 0.5))
KINDS = ("noise", "blobs", "one voxel", "at the border", "full", "empty reference", "empty prediction", "one slice")


@dataclass(frozen=True)
class MaskPair:
    """A reference and a prediction, (x, y, z) booleans, and their voxel size in mm."""

    reference: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, float, float]

    @property
    def both_exist(self) -> bool:
        return bool(self.reference.any() and self.prediction.any())


def drawn(*rows: str, label: str = "") -> np.ndarray:
    """A drawing as an array (x, y, 1): one text per x, one character per y; "." is 0, "#" is 1, digits are labels.

    With `label`, a mask of that character.
    """
    if label:
        return np.array([[character == label for character in row] for row in rows])[..., None]
    values = {".": 0, "#": 1} | {str(n): n for n in range(10)}
    return np.array([[values[character] for character in row] for row in rows], np.uint8)[..., None]


def random_pair(kind: str, seed: int) -> MaskPair:
    """A pair of this kind; sides are 3 to 12 voxels."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    shape = tuple(rng.integers(3, 13, 3))
    spacing = SPACINGS[seed % len(SPACINGS)]
    reference, prediction = _blobs(rng, shape), _blobs(rng, shape)
    if kind == "noise":
        reference, prediction = (rng.random(shape) < rng.choice([0.02, 0.2, 0.6]) for _ in range(2))
    elif kind == "one voxel":
        prediction = np.zeros(shape, bool)
        prediction[tuple(rng.integers(0, shape))] = True
    elif kind == "at the border":
        reference[0], prediction[:, -1] = True, True
    elif kind == "full":
        reference = np.ones(shape, bool)
    elif kind == "empty reference":
        reference = np.zeros(shape, bool)
    elif kind == "empty prediction":
        prediction = np.zeros(shape, bool)
    elif kind == "one slice":
        reference, prediction = reference[..., :1], prediction[..., :1]
    return MaskPair(reference, prediction, spacing)


def several_lesions(seed: int, shape: tuple[int, int, int] = (24, 20, 16)) -> MaskPair:
    """Many small blobs, and a prediction that contains some of them, shifted, and others."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=shape), 1.2)
    other = gaussian_filter(rng.normal(size=shape), 1.2)
    reference = field > np.quantile(field, 0.95)
    mixed = 0.75 * np.roll(field, rng.integers(0, 2), axis=0) + 0.5 * other
    return MaskPair(reference, mixed > np.quantile(mixed, 0.95), SPACINGS[seed % len(SPACINGS)])


def _blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    field = gaussian_filter(rng.normal(size=shape), 1.5)
    return field >= np.quantile(field, rng.choice([0.5, 0.8, 0.95]))
