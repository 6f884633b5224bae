"""How many tiles nnU-Net's sliding window has."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window


def num_tiles(shape: Sequence[int], patch: Sequence[int], step: float) -> int:
    """The number of tiles of a preprocessed image; a 2D network sees the slices one by one.

    Args:
        shape: of the image, three numbers of voxels.
        patch: of the network, two or three.
        step: as a fraction of the patch.
    """
    apart = len(shape) - len(patch)
    padded = tuple(max(sizes) for sizes in zip(shape[apart:], patch, strict=True))
    steps = compute_steps_for_sliding_window(padded, tuple(patch), step)
    return math.prod(shape[:apart]) * math.prod(map(len, steps))
