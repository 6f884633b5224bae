"""Postprocessing region by region: a threshold before labels are decided, then holes and components.

A region is a label or a region of ``dataset.json``. A region is where its probability is above its threshold t. Of
labels that exclude each other, probabilities are weighted by (1 - t) / t and the largest is taken, which is the same
with two classes. On logits both are an offset of log((1 - t) / t): sigmoid(x) > t where x + log((1 - t) / t) > 0.

Then holes are filled and components removed. What is removed from a region becomes the smallest region around it, or
background; what is added to a label that excludes others comes from the background alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from scipy.ndimage import binary_fill_holes

from factorizer_nnunet.imaging.components import connected_components
from factorizer_nnunet.imaging.content import bounding_box
from factorizer_nnunet.imaging.limits import at_least
from factorizer_nnunet.nnunet.dataset_json import REGIONS_ORDER_KEY, DatasetJson
from factorizer_nnunet.nnunet.probabilities_file import regions_of_outputs

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class RegionRule:
    """What is done to a region; by default nothing.

    Attributes:
        threshold: of its probability, above 0 and below 1.
        min_lesion_mm3: components (26 neighbours) smaller than this volume are removed.
        fill_holes: background that the region encloses on all sides becomes the region.
        largest_only: all components but the largest are removed.
    """

    threshold: float = DEFAULT_THRESHOLD
    min_lesion_mm3: float = 0.0
    fill_holes: bool = False
    largest_only: bool = False

    @property
    def is_default(self) -> bool:
        """Whether nothing is done."""
        return self == RegionRule()

    @property
    def cost(self) -> int:
        """The number of settings that are not the default."""
        return sum(getattr(self, field.name) != field.default for field in fields(self))

    def __str__(self) -> str:
        parts = [f"threshold {self.threshold:g}"] if self.threshold != DEFAULT_THRESHOLD else []
        parts += ["holes filled"] if self.fill_holes else []
        parts += [f"components below {self.min_lesion_mm3:g} mm³ removed"] if self.min_lesion_mm3 else []
        parts += ["only the largest component kept"] if self.largest_only else []
        return ", ".join(parts) or "unchanged"


@dataclass(frozen=True)
class Postprocessing:
    """The rules of a model's regions, by their names in ``dataset.json``; regions without a rule stay as they are."""

    rules: Mapping[str, RegionRule]
    dataset: DatasetJson

    def __str__(self) -> str:
        return "; ".join(f"{name}: {rule}" for name, rule in self.rules.items())

    def content(self) -> dict[str, dict[str, Any]]:
        """The rules as JSON values, for records."""
        return {name: asdict(rule) for name, rule in self.rules.items()}

    def offsets(self) -> list[float]:
        """What is added to the logits of each output of the network, in nnU-Net's order."""
        names = list(self.dataset.regions)
        outputs = regions_of_outputs(self.dataset)
        thresholds = [DEFAULT_THRESHOLD] * (max(outputs) + 1)
        for number, place in outputs.items():
            if names[place] in self.rules:
                thresholds[number] = self.rules[names[place]].threshold
        return [math.log((1 - threshold) / threshold) for threshold in thresholds]

    def cleaned(self, labels: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """Labels with holes filled and components removed, larger regions first.

        Args:
            labels: integers, (x, y, z) or in another order of the axes.
            spacing: size of a voxel along each axis in mm.
        """
        space = LabelSpace(self.dataset)
        by_size = sorted(self.rules, key=lambda name: -len(space.regions[name]))
        for name in by_size:
            labels = space.cleaned(labels, name, self.rules[name], voxel_mm3(labels.shape, spacing))
        return labels


class LabelSpace:
    """Which label values a region consists of, and what a voxel becomes that leaves or enters it."""

    def __init__(self, dataset: DatasetJson) -> None:
        self.regions = dataset.regions
        self.has_regions = any(len(values) > 1 for values in self.regions.values())
        order = dataset.content.get(REGIONS_ORDER_KEY)
        values = order if self.has_regions and order else [labels[0] for labels in self.regions.values()]
        self.written: dict[str, int] = dict(zip(self.regions, values, strict=True))  # the label that a region writes
        self._size = max(dataset.label_values) + 1

    def mask(self, labels: np.ndarray, name: str) -> np.ndarray:
        """Where a region is."""
        inside = np.zeros(self._size, bool)
        inside[list(self.regions[name])] = True
        return inside[labels]

    def cleaned(self, labels: np.ndarray, name: str, rule: RegionRule, voxel: float) -> np.ndarray:
        """Labels after one region was cleaned; the same array if nothing changes. ``voxel`` is its volume in mm³."""
        before = self.mask(labels, name)
        after = cleaned_mask(before, rule, voxel)
        if after is before or np.array_equal(before, after):
            return labels
        result = labels.copy()
        removed, added = before & ~after, after & ~before
        result[removed] = self._without(name).astype(labels.dtype)[labels[removed]]
        if not self.has_regions:
            added &= labels == 0
        result[added] = self.written[name]
        return result

    def _without(self, name: str) -> np.ndarray:
        """For each label value of a region, the label of a voxel that leaves it."""
        own, result = set(self.regions[name]), np.zeros(self._size, int)
        if not self.has_regions:
            return result
        for value in own:
            for other in reversed(self.regions):  # those written last are in those written first
                around = value in self.regions[other] and not set(self.regions[other]) <= own
                if around and self.written[other] not in own:
                    result[value] = self.written[other]
                    break
        return result


def cleaned_mask(mask: np.ndarray, rule: RegionRule, voxel: float) -> np.ndarray:
    """A mask with holes filled, then components removed; the same array if the rule asks for neither.

    Args:
        mask: booleans, 2D or 3D; holes stay closed along an axis of one voxel.
        rule: the threshold is not used.
        voxel: volume of a voxel in mm³.
    """
    box = bounding_box(mask) if rule.fill_holes or rule.min_lesion_mm3 or rule.largest_only else None
    if box is None:
        return mask
    result = np.zeros_like(mask)
    part = mask[box]
    if rule.fill_holes:
        flat = tuple(axis for axis, size in enumerate(mask.shape) if size == 1)
        part = np.expand_dims(binary_fill_holes(part.squeeze(flat)), flat)
    if rule.min_lesion_mm3 or rule.largest_only:
        components, count = connected_components(part)
        sizes = np.bincount(components.ravel(), minlength=count + 1)
        sizes[0] = 0
        keep = at_least(sizes * voxel, rule.min_lesion_mm3)
        if rule.largest_only:
            keep &= np.arange(count + 1) == np.argmax(sizes)
        keep[0] = False
        part = keep[components]
    result[box] = part
    return result


def voxel_mm3(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """The volume of a voxel in mm³; an axis of one voxel counts as 1 mm, since nnU-Net invents a thickness there."""
    return math.prod(mm for size, mm in zip(shape, spacing, strict=False) if size > 1)
