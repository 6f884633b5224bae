"""What a release is, as values: the shared conversion reads these and touches files, this module touches none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelMap:
    """Label values of a release to those written for nnU-Net, e.g. {0: 0, 2: 1, 1: 2, 4: 3}."""

    to_nnunet: Mapping[int, int]

    def inverse(self) -> LabelMap:
        """Return the way back, as a submission needs it.

        Raises:
            ValueError: two values become one.
        """
        back = {new: old for old, new in self.to_nnunet.items()}
        if len(back) < len(self.to_nnunet):
            raise ValueError(f"labels merge in {dict(self.to_nnunet)}: no way back")
        return LabelMap(back)

    def unexpected(self, labels: np.ndarray) -> dict[int, int]:
        """Return how many voxels hold each value that the map does not know; `labels` are integers of any shape."""
        values, counts = np.unique(labels, return_counts=True)
        return {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in self.to_nnunet}

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """Return `labels` (integers of any shape) with mapped values, uint8, in the same shape.

        Raises:
            ValueError: a value is not in the map.
        """
        unknown = self.unexpected(labels)
        if unknown:
            raise ValueError(f"values {sorted(unknown)} are not among {sorted(self.to_nnunet)}")
        mapped = np.zeros(labels.shape, dtype=np.uint8)
        for old, new in self.to_nnunet.items():
            mapped[labels == old] = new
        return mapped


@dataclass(frozen=True)
class Channel:
    """One input image of a case: its name in dataset.json, which chooses nnU-Net's normalisation, and its file.

    `file` is the file's name without its ending (.nii.gz or .nii), `{case}` standing for the case ID.
    """

    name: str
    file: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release of a challenge: how its files lie and what they mean.

    The order of `channels` fixes nnU-Net's file endings _0000, _0001, …; `regions` are sets of written label values,
    encompassing ones first, and `regions_class_order` names the value each region leaves in a prediction, later
    entries overwriting earlier ones (nnU-Net, documentation/region_based_training.md).
    """

    key: str  # as the user names the release
    title: str
    case_pattern: str  # regular expression that the name of a case's folder matches whole
    patient_pattern: str  # its group 1 in a case ID is the patient; cases of one patient stay in one fold
    channels: tuple[Channel, ...]
    label_file: str  # spelled as `Channel.file`
    labels: LabelMap
    regions: Mapping[str, tuple[int, ...]]
    regions_class_order: tuple[int, ...]
    unlabelled_pattern: str  # a folder above a case matching this says that the case has no label by design
    licence: str
    reference: str

    def __post_init__(self) -> None:
        written = sorted(set(self.labels.to_nnunet.values()))
        if written != list(range(len(written))):
            raise ValueError(f"{self.key}: nnU-Net needs labels 0, 1, 2, …; the label map writes {written}")
        in_regions = sorted({value for region in self.regions.values() for value in region})
        if in_regions != written[1:] or len(self.regions) != len(self.regions_class_order):
            raise ValueError(
                f"{self.key}: regions {dict(self.regions)} and their order {self.regions_class_order} must cover the "
                f"labels {written[1:]}, one order entry a region"
            )

    def patient(self, case: str) -> str:
        """Return the patient that a case ID belongs to.

        Raises:
            ValueError: the ID is not one of this release.
        """
        match = re.fullmatch(self.patient_pattern, case)
        if match is None:
            raise ValueError(f"{case!r} is not a case ID of {self.title} ({self.patient_pattern})")
        return match[1]
