"""A small preprocessed case, as nnU-Net's preprocessing leaves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2


def save_case(folder: Path, case: str, image: int = 0, label: int = 0) -> None:
    """Write the preprocessed files of a case; other numbers give another image or label."""
    data = np.random.default_rng(image).normal(size=(1, 9, 9, 9)).astype(np.float32) * (1 + image)
    segmentation = np.zeros(data.shape, np.int8)
    segmentation[0, label, 2, 2] = 1
    properties = {"class_locations": {1: np.argwhere(segmentation == 1)}}
    shape = {"chunks": data.shape, "blocks": data.shape}
    nnUNetDatasetBlosc2.save_case(data, segmentation, properties, str(folder / case), **shape)
