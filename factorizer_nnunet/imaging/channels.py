"""Which channel of a case shows its labels best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

_MARGIN = 4  # voxels around the label that it is compared with
_MIN_VOXELS = 5


def label_contrast(values: np.ndarray, labelled: np.ndarray) -> float:
    """How much the labelled voxels differ from those around them; 0 if there are too few of either.

    Cohen's d: the absolute difference of the means over the pooled standard deviation. The surroundings are all voxels
    within four voxels of the label, except a constant background of 0.

    Args:
        values: (x, y, z).
        labelled: bool, of the same shape.
    """
    box = ndimage.find_objects(labelled.astype(np.uint8))
    if not box:
        return 0.0
    around = tuple(slice(max(part.start - _MARGIN, 0), part.stop + _MARGIN) for part in box[0])
    inside, values = labelled[around], np.nan_to_num(values[around].astype(np.float32), posinf=0, neginf=0)
    shell = ndimage.binary_dilation(inside, iterations=_MARGIN) & ~inside
    shell &= values != 0
    own, other = values[inside], values[shell]
    if min(own.size, other.size) < _MIN_VOXELS:
        return 0.0
    pooled = np.sqrt((own.var() + other.var()) / 2)
    difference = abs(float(own.mean()) - float(other.mean()))
    return difference / float(pooled) if pooled > 0 else (np.inf if difference else 0.0)


def display_channel(images: Sequence[np.ndarray], labelled: np.ndarray) -> int:
    """The channel, counted from 0, with the largest `label_contrast`; the first without labels.

    Args:
        images: one (x, y, z) per channel.
        labelled: bool, of the same shape.
    """
    contrasts = [label_contrast(values, labelled) for values in images]
    return int(np.argmax(contrasts)) if contrasts else 0


def named_channel(names: Sequence[str], wanted: str) -> int | None:
    """The place of a channel by its name, ignoring case; None if the name is unknown."""
    folded = [name.casefold() for name in names]
    return folded.index(wanted.casefold()) if wanted and wanted.casefold() in folded else None
