"""nnU-Net's data loader, reading only the voxels that each sample needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch import Tensor

from factorizer_nnunet.core.worker_pool import end_with_parent
from factorizer_nnunet.training.augmentation.spatial import SpatialDraws, box_within

# What a batch of boxes has for each sample.
BOX_PARTS = ("data", "target", "pad", "affine")


class BoxLoader(nnUNetDataLoader):
    """Samples cases and locations as a loader of nnU-Net's does, and gives boxes instead of transformed patches.

    A batch has, per sample, ``data`` (C, *box) as float32, ``target`` (C, *box) as int16, ``pad`` and ``affine``, see
    ``spatial.Box``; and ``keys``, the cases.

    Args:
        stock: the loader that nnU-Net's trainer made; all its settings are taken over.
        draws: None if nnU-Net's region is the patch.
    """

    def __init__(self, stock: nnUNetDataLoader, draws: SpatialDraws | None) -> None:
        # nnU-Net's trainer has passed all arguments already; the loader keeps only what it made of them.
        self.__dict__.update(vars(stock))
        self.transforms = self._collect
        self._draws = draws
        self._boxes: dict[str, list[Any]] = {}

    def set_thread_id(self, thread_id: int) -> None:
        """Called once in each worker, which from then on ends if the training is killed."""
        super().set_thread_id(thread_id)
        end_with_parent()

    def get_bbox(
        self, data_shape: Sequence[int], *args: Any, **options: Any
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """nnU-Net's region, narrowed to the box that the drawn parameters need."""
        lower, upper = super().get_bbox(data_shape, *args, **options)
        make = box_within if self._draws is None else self._draws.draw
        box = make(lower, upper, data_shape)
        spatial_axes = slice(1 if self.patch_size_was_2d else 0, None)  # nnU-Net removes the axis that it added
        self._boxes["pad"].append(box.pad[spatial_axes])
        self._boxes["affine"].append(box.affine)
        return box.start, box.stop

    def generate_train_batch(self) -> dict[str, Any]:
        """A batch of boxes; nnU-Net's own code reads and converts them."""
        self._boxes = {part: [] for part in BOX_PARTS}
        keys = super().generate_train_batch()["keys"]
        return {**self._boxes, "keys": keys}

    def _collect(self, image: Tensor, segmentation: Tensor) -> dict[str, Tensor]:
        # Boxes differ in size, so that nnU-Net's code cannot stack them: it gets empty tensors.
        self._boxes["data"].append(image)
        self._boxes["target"].append(segmentation)
        return {"image": torch.empty(0), "segmentation": torch.empty(0)}
