"""What ``--quality`` and ``--uncertainty`` add to the prediction of a case: its passes, as a record and as maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from factorizer_nnunet.imaging.components import connected_components
from factorizer_nnunet.imaging.content import bounding_box
from factorizer_nnunet.imaging.statistics import channel_statistics
from factorizer_nnunet.nnunet.pass_record import (
    PASSES_ENDING,
    PassRecord,
    RegionPasses,
    expected_dice,
    passes_text,
)
from factorizer_nnunet.prediction.description import ModelDescription
from factorizer_nnunet.prediction.pass_comparison import Compared, PassComparison, pairwise_dice


@dataclass(frozen=True)
class Measured:
    """A case in the passes of one model.

    Attributes:
        compared: its passes.
        channels: statistics of the preprocessed channels.
        properties: of the case, from preprocessing.
        model: which predicted.
    """

    compared: Compared
    channels: tuple[Mapping[str, float], ...]
    properties: Mapping[str, Any]
    model: ModelDescription

    def record(self) -> PassRecord:
        """What is kept of it. Counting lesions takes a moment."""
        backward, spacing = self.model.plans.transpose_backward, [float(mm) for mm in self.properties["spacing"]]
        cropped = self.properties["shape_after_cropping_and_before_resampling"]
        size = [int(cropped[axis]) * mm for axis, mm in zip(backward, spacing, strict=True)]
        return PassRecord(
            num_passes=self.compared.within.shape[-1],
            spacing_mm=tuple(spacing),
            size_mm=tuple(size),
            channels=self.channels,
            regions={name: self._region(number) for number, name in enumerate(self.model.region_outputs)},
        )

    def _region(self, region: int) -> RegionPasses:
        found = self.compared
        voxel_ml = _voxel_ml(self.properties, self.model, found.members.shape[1:])
        masks = [found.member_mask(member, region) for member in range(len(found.members))]
        return RegionPasses(
            agreement=tuple(pairwise_dice(common[region]) for common in found.within),
            confidence=tuple(expected_dice(*map(float, fold[region])) for fold in found.confidence),
            fold_agreement=pairwise_dice(found.between[region]),
            volumes_ml=tuple(voxel_ml * int(np.count_nonzero(mask)) for mask in masks),
            lesions=tuple(_lesions(mask) for mask in masks),
        )


def comparison_of(model: ModelDescription, predictor: nnUNetPredictor, shape: Sequence[int]) -> PassComparison:
    """A watcher of the passes of one case, whose preprocessed image has a shape, (z, y, x)."""
    outputs = list(model.region_outputs.values())
    return PassComparison(shape, outputs, model.labels.has_regions, len(predictor.list_of_parameters))


def statistics_of(data: np.ndarray, model: ModelDescription) -> tuple[dict[str, float], ...]:
    """Statistics of the channels of a preprocessed image, without those of a previous stage."""
    return tuple(channel_statistics(channel) for channel in data[: len(model.dataset.channel_names)])


def write_passes(truncated: str, measured: Sequence[Measured]) -> None:
    """Write the record of a case, whose files begin with ``truncated``."""
    Path(f"{truncated}{PASSES_ENDING}").write_text(passes_text([one.record() for one in measured]), encoding="utf-8")


def _voxel_ml(properties: Mapping[str, Any], model: ModelDescription, shape: Sequence[int]) -> float:
    """The volume of a voxel of the network's grid."""
    order = model.plans.transpose_forward
    spacing = [float(properties["spacing"][axis]) for axis in order]
    cropped = properties["shape_after_cropping_and_before_resampling"]
    return float(np.prod([mm * n / m for mm, n, m in zip(spacing, cropped, shape, strict=True)])) / 1000


def _lesions(mask: np.ndarray) -> int:
    box = bounding_box(mask)
    return 0 if box is None else connected_components(mask[box])[1]
