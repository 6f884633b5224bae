"""Draw the spatial parameters of a sample first, then say which voxels of the image they need.

For every patch, nnU-Net reads a larger region from which any rotated and scaled patch can be sampled, although 64 % of
its samples are neither rotated nor scaled. The parameters are drawn by batchgeneratorsv2's ``SpatialTransform`` itself.
What lies outside of nnU-Net's region is padding for its transform, so that the box is never larger than the region.
What lies outside of the image is padding, too, and is left out: the device adds it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

from factorizer_nnunet.training.augmentation.unsupported import UnsupportedError

OUTSIDE = -1  # nnU-Net's label of voxels that it pads
# Rounding in float32 on the device must not move a sampled point out of the box.
_MARGIN = 1e-2  # voxels
# The settings of nnU-Net's pipeline that the device's version of the transform has.
_HANDLED = {
    "p_elastic_deform": (0,),
    "random_crop": (False,),
    "align_corners": (False,),
    "mode_image": ("bilinear",),
    "mode_seg": ("bilinear",),
    "padding_mode_image": ("zeros",),
    "border_mode_seg": ("constant",),
    "padding_value_seg": (OUTSIDE,),
    "seg_tiebreak": ("nearest",),
}


@dataclass(frozen=True)
class Box:
    """The voxels of an image that a sample needs, and how its patch is made from them.

    Attributes:
        start: first voxel of the box on each axis, in the image.
        stop: the voxel after the last one.
        pad: voxels to add before and after the box on each axis, of value 0 and label :data:`OUTSIDE`.
        affine: one row per axis of the spatial transform: the position in the box, in voxels, is the row's first
            entries times the voxel of the patch relative to the patch's centre, plus the row's last entry. None if the
            padded box is the patch.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    pad: tuple[tuple[int, int], ...]
    affine: list[list[float]] | None


class SpatialDraws:
    """Draws for one ``SpatialTransform``.

    Raises:
        UnsupportedError: the transform has a setting that is not handled here; the message names it.
    """

    def __init__(self, transform: SpatialTransform) -> None:
        for name, handled in _HANDLED.items():
            value = getattr(transform, name, handled[0])
            if value not in handled:
                raise UnsupportedError(f"SpatialTransform with {name}={value!r}")
        self.patch = tuple(int(size) for size in transform.patch_size)
        # The transform also makes the grid of all sampled points. For a patch of one voxel, that costs nothing.
        self._one_voxel = copy.copy(transform)
        self._one_voxel.patch_size = (1,) * len(self.patch)

    def draw(self, lower: Sequence[int], upper: Sequence[int], shape: Sequence[int]) -> Box:
        """Draw parameters from NumPy's generator, as the transform does.

        Args:
            lower: first voxel of the region that nnU-Net would read, in the image; may be negative.
            upper: the voxel after its last one. The region may have an axis before those of the transform: slices
                that are all read, and which nnU-Net's dummy 2D augmentation transforms alike.
            shape: of the image.
        """
        leading = len(shape) - len(self.patch)
        size = np.subtract(upper, lower)[leading:]
        # The transform looks at the image's shape alone.
        matrix = self._one_voxel.get_parameters(image=torch.empty(1).expand(1, *size.tolist()))["affine"]
        if matrix is None:
            start = size // 2 - np.array(self.patch) // 2
            stop = start + self.patch
        else:
            centre = (size - 1) / 2
            reach = np.abs(matrix) @ ((np.array(self.patch) - 1) / 2) + _MARGIN
            start = np.maximum(np.floor(centre - reach), 0).astype(int)
            stop = np.minimum(np.floor(centre + reach) + 2, size).astype(int)
        box = box_within(
            [*lower[:leading], *np.add(lower[leading:], start)],
            [*upper[:leading], *np.add(lower[leading:], stop)],
            shape,
        )
        if matrix is None:
            return box
        centre = centre + lower[leading:] - box.start[leading:]
        pad = (*box.pad[:leading], *((0, 0) for _ in self.patch))  # sampling pads
        return Box(box.start, box.stop, pad, np.column_stack([matrix, centre]).tolist())


def box_within(lower: Sequence[int], upper: Sequence[int], shape: Sequence[int]) -> Box:
    """The part of a region that lies in the image, with the padding that completes it."""
    start = [max(0, int(first)) for first in lower]
    stop = [min(size, int(end)) for size, end in zip(shape, upper, strict=True)]
    if any(first >= end for first, end in zip(start, stop, strict=True)):  # nnU-Net's reader knows what to give
        start, stop = [int(first) for first in lower], [int(end) for end in upper]
    pad = tuple(
        (first - int(low), int(up) - end) for first, end, low, up in zip(start, stop, lower, upper, strict=True)
    )
    return Box(tuple(start), tuple(stop), pad, None)
