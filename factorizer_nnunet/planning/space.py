"""Whether a disk has space for preprocessed data: a lower bound, so that nothing is refused wrongly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.disk import free_space
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE
from factorizer_nnunet.nnunet.plans import resolved_configuration

COMPRESSED = 0.2  # nnU-Net compresses data and probabilities, rarely to less than a fifth
_DATA_BYTES = 4


def preprocessed_bytes(
    fingerprint: Mapping[str, Any], plans: Mapping[str, Any], configuration: str, num_channels: int
) -> float:
    """The least size in bytes of a configuration's preprocessed data, 4 bytes per voxel and channel."""
    own = [math.prod(shape) for shape in fingerprint["shapes_after_crop"]]
    planned = resolved_configuration(plans, configuration, "the plans")["spacing"]
    if len(planned) == 3:  # slices are resampled only within their plane, and little
        sizes = map(math.prod, fingerprint["spacings"])
        own = [voxels * size / math.prod(planned) for voxels, size in zip(own, sizes, strict=True)]
    return sum(own) * num_channels * _DATA_BYTES * COMPRESSED


def check_space(folder: Path, plans: Mapping[str, Any], configurations: Sequence[str], num_channels: int) -> None:
    """Check that there is space for preprocessed data that are about to be written.

    Args:
        folder: the dataset's folder in ``nnUNet_preprocessed``, with its fingerprint.
        plans: the plans.
        configurations: those to preprocess.
        num_channels: of the images.

    Raises:
        UserError: there is too little.
    """
    fingerprint = load_json_object(folder / FINGERPRINT_FILE, "Compute it again with --clean")
    wanted = sum(preprocessed_bytes(fingerprint, plans, name, num_channels) for name in configurations)
    free = free_space(folder)
    if free < wanted:
        raise UserError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free, but preprocessing will write at least "
            f"{wanted / 1e9:.1f} GB. Free space, or set nnUNet_preprocessed to a folder on another disk"
        )
