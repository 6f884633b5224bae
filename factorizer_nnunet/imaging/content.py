"""The part of a case that is worth showing or scoring: boxes around voxels that are not background."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box that contains all voxels of a mask; None if it is empty."""
    box = [slice(0, n) for n in mask.shape]
    for axis in np.argsort(mask.strides):  # the first projection is along the slowest axis in memory, others are small
        projection: np.ndarray = mask[tuple(box)]
        for other in np.argsort(mask.strides)[::-1]:
            if other != axis:
                projection = np.any(projection, axis=int(other), keepdims=True)
        filled = np.flatnonzero(projection)
        if not filled.size:
            return None
        box[axis] = slice(int(filled[0]), int(filled[-1]) + 1)
    return tuple(box)


def content_box(images: Iterable[np.ndarray], labels: Sequence[np.ndarray]) -> tuple[slice, ...]:
    """The box of all that is not background; the complete volume if nothing is.

    Skull-stripped brains fill only a part of their volume.

    Args:
        images: (x, y, z) each, at least one; their smallest value is background.
        labels: of the same shape; 0 is background.
    """
    filled = np.logical_or.reduce([*(image != image.min() for image in images), *(one != 0 for one in labels)])
    return bounding_box(filled) or tuple(slice(0, n) for n in filled.shape)
