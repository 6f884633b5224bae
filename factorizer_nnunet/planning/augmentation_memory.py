"""GPU memory of augmentation on the device, next to that of a training step: an upper bound.

Augmentation transforms one sample at a time while the network trains on the batch before, and a complete batch waits.
So it needs, besides the batch that the step itself has,

    2 batches  +  the samples of a batch before they are stacked  +  the largest need of one sample.

Of one sample, the device has the box that was read, at most nnU-Net's region (205³ voxels for a patch of 128³), and for
each voxel of the patch: the sampled image and its sampling grid; of labels, one label and one weight for each corner of
a cell; and what the transforms of intensities and labels need, one after the other.
``benchmarks/augmentation_memory.py`` compares the bound with measured peaks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

_IMAGE, _LABEL, _POSITION = 4, 2, 4  # bytes a number: float32, int16, float32
_SCALES = (0.85, 1.25)  # with which nnU-Net computes its region


def augmentation_bytes(
    patch_size: Sequence[int], batch_size: int, channels: int, previous_labels: int, targets: int
) -> int:
    """Most bytes of a GPU that augmentation takes.

    Args:
        patch_size: in voxels.
        batch_size: patches in a step, of one GPU.
        channels: of the image.
        previous_labels: channels that a cascade adds, one for each label of the previous stage's segmentation.
        targets: channels of a reference: regions, or 1 for labels.
    """
    patch = math.prod(patch_size)
    region = math.prod(region_size(patch_size))
    dim = len(patch_size)
    maps = 1 + (previous_labels > 0)  # of labels, before they become channels
    inputs = channels + previous_labels
    # A target is float32 or int16, and lower resolutions add at most a third in 2D; a bool copy waits for its turn.
    sample = patch * (_IMAGE * inputs + 1.4 * _IMAGE * targets)
    corners = 2**dim
    box = region * (_IMAGE * channels + _LABEL * maps)
    image = patch * (2 * _IMAGE * channels + 4 * dim * _POSITION)
    labels = patch * (_IMAGE * channels + 3 * dim * _POSITION + corners * (_POSITION + _LABEL * maps) + 40 + 24 * maps)
    intensities = patch * (2 * _IMAGE * inputs + 8 * _IMAGE + 2 * _LABEL * maps)
    shapes = patch * (2 * _IMAGE * inputs) + _fft_bytes(patch_size) if previous_labels else 0
    references = patch * (_IMAGE * inputs + 3 * _IMAGE * targets + _LABEL * maps)
    return math.ceil(3 * batch_size * sample + max(box + image, box + labels, intensities, shapes, references))


def region_size(patch_size: Sequence[int]) -> tuple[int, ...]:
    """What nnU-Net reads for a patch, as its trainer computes it."""
    flat = len(patch_size) == 3 and max(patch_size) / patch_size[0] > ANISO_THRESHOLD  # rotated within slices
    elongated = len(patch_size) == 2 and max(patch_size) / min(patch_size) > 1.5
    degrees = 15 if elongated else 180 if flat or len(patch_size) == 2 else 30
    angle = (-np.deg2rad(degrees), np.deg2rad(degrees))
    region = [int(size) for size in get_patch_size(list(patch_size), angle, angle, angle, _SCALES)]
    return (patch_size[0], *region[1:]) if flat else tuple(region)


def _fft_bytes(patch_size: Sequence[int]) -> float:
    """Of dilating a label with a ball of up to 10 voxels, by a Fourier transform of a padded channel."""
    padded = math.prod(size + 2 * 10 + 1 for size in patch_size)
    return 6 * _IMAGE * padded
