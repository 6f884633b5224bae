"""Connected components of a mask."""

from __future__ import annotations

from typing import Literal

import cc3d
import numpy as np

Connectivity = Literal[6, 18, 26]


def connected_components(mask: np.ndarray, connectivity: Connectivity = 26) -> tuple[np.ndarray, int]:
    """Number the components of a mask from 1.

    Args:
        mask: booleans, 2D or 3D.
        connectivity: which neighbours of a voxel belong to its component: those with a common face, also with a common
            edge, also with a common corner. Pixels have no others than voxels of a single slice.

    Returns:
        Their numbers in the mask's shape, 0 outside, and how many there are.
    """
    # cc3d up to 4.1.1 expects too few components of booleans when an axis is short, and fails: numbers are safe.
    numbers = np.ascontiguousarray(mask, dtype=np.uint8)
    volume = numbers.reshape(*numbers.shape, *[1] * (3 - numbers.ndim))
    components, count = cc3d.connected_components(volume, connectivity=connectivity, return_N=True)
    return components.reshape(mask.shape), int(count)
