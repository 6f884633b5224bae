"""Limits, such as a tolerance in mm or a smallest volume, compared so that rounding does not decide.

NIfTI stores voxel sizes as float32: 0.4 mm comes back as 0.4000000059604645, and five such voxels are farther than
2 mm. So voxel sizes are read as the shortest decimals that the header's float32 stands for, and what differs from a
limit by less than `SLACK` of it counts as equal to the limit.
"""

from __future__ import annotations

import numpy as np

SLACK = 1e-6  # relative; a third of a millimetre as float32 differs from the third by 3e-8


def shortest_decimal(value: float) -> float:
    """The shortest decimal with the same float32: 0.4 for 0.4000000059604645. A value that no float32 has is kept."""
    single = np.float32(value)
    return float(str(single)) if float(single) == value else float(value)


def at_most(values: np.ndarray | float, limit: float) -> np.ndarray:
    """Whether values, of any shape, are not above a limit of at least 0; those that equal it up to rounding are not."""
    result: np.ndarray = np.asarray(values) <= limit * (1 + SLACK)
    return result


def at_least(values: np.ndarray | float, limit: float) -> np.ndarray:
    """Whether values, of any shape, are not below a limit of at least 0; those that equal it up to rounding are not."""
    result: np.ndarray = np.asarray(values) >= limit * (1 - SLACK)
    return result
