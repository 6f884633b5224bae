"""Divide nnU-Net's pipeline: spatial parameters for the workers, everything else for the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from torch import Tensor
from torch.nn.functional import pad as torch_pad

from factorizer_nnunet.training.augmentation.resampling import sample_image, sample_labels, sampled_positions
from factorizer_nnunet.training.augmentation.spatial import OUTSIDE, SpatialDraws
from factorizer_nnunet.training.augmentation.transforms import apply, check_transform
from factorizer_nnunet.training.augmentation.unsupported import UnsupportedError

Affine = Sequence[Sequence[float]]


@dataclass(frozen=True)
class DividedPipeline:
    """A pipeline of nnU-Net's in two parts.

    Attributes:
        draws: for the workers; None if the pipeline has no spatial transform, as that of validation batches.
        others: the transforms after the spatial one, for the device.
    """

    draws: SpatialDraws | None
    others: tuple[BasicTransform, ...]

    @torch.no_grad()
    def transform(
        self, image: Tensor, labels: Tensor, pad: Sequence[tuple[int, int]], affine: Affine | None
    ) -> tuple[Tensor, Tensor | list[Tensor]]:
        """Transform one sample where it lies.

        Args:
            image: (C, *box), float32; may be changed.
            labels: (C, *box), int16; may be changed.
            pad: as in ``spatial.Box``.
            affine: as in ``spatial.Box``.

        Returns:
            What nnU-Net's pipeline gives: image (C, *patch) and target, a list of targets with deep supervision.
        """
        if any(before or after for before, after in pad):
            flat = [number for both in reversed(pad) for number in both]
            image, labels = torch_pad(image, flat), torch_pad(labels, flat, value=OUTSIDE)
        if affine is not None:
            assert self.draws is not None  # they gave the affine map
            dim = len(self.draws.patch)
            positions = sampled_positions(affine, self.draws.patch, image.device)
            # Of dummy 2D augmentation, the slices are channels.
            leading = image.shape[1:-dim]
            image = sample_image(image.flatten(0, -dim - 1), positions).unflatten(0, (-1, *leading))
            labels = sample_labels(labels.flatten(0, -dim - 1), positions, OUTSIDE).unflatten(0, (-1, *leading))
        sample: dict[str, Any] = {"image": image, "segmentation": labels}
        for transform in self.others:
            sample = apply(transform, sample)
        return sample["image"], sample["segmentation"]


def divide(pipeline: BasicTransform) -> DividedPipeline:
    """Divide what the trainer's ``get_training_transforms`` or ``get_validation_transforms`` gave.

    Raises:
        UnsupportedError: names the first transform that is not known here, by its exact class.
    """
    if type(pipeline) is not ComposeTransforms:
        raise UnsupportedError(f"the pipeline {type(pipeline).__name__}")
    transforms = list(pipeline.transforms)
    kinds = [type(transform) for transform in transforms]
    spatial = None
    if kinds[:1] == [SpatialTransform]:
        spatial, transforms = transforms[0], transforms[1:]
    elif kinds[:3] == [Convert3DTo2DTransform, SpatialTransform, Convert2DTo3DTransform]:
        spatial, transforms = transforms[1], transforms[3:]
    for transform in transforms:
        check_transform(transform)
    return DividedPipeline(None if spatial is None else SpatialDraws(spatial), tuple(transforms))
