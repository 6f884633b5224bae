"""The metrics as records: key, title, unit, and whether higher is better. They are computed in `case`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from factorizer_nnunet.core.errors import UserError


@dataclass(frozen=True)
class Metric:
    """A value per case and region; `higher_is_better` is None if neither is better, as for a volume."""

    key: str  # in scores.csv and summary.json
    title: str  # in tables and figures
    unit: str  # "" for fractions and counts, else mm or ml
    higher_is_better: bool | None
    digits: int = 3  # decimals in tables

    @property
    def is_count(self) -> bool:
        """Whether it counts lesions or voxels."""
        return self.digits < 2

    @property
    def arrow(self) -> str:
        """Which way is better, to follow a title; empty if neither is."""
        return {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]

    @property
    def title_and_unit(self) -> str:
        """Such as "HD95, mm"."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def with_unit(self, value: str) -> str:
        """A value and the unit, such as "3.20 mm"."""
        return f"{value} {self.unit}" if self.unit else value

    def shown(self, value: float) -> str:
        """A value as pages show it."""
        if math.isnan(value):
            return "–"
        return "∞" if math.isinf(value) else f"{round(value, self.digits) + 0.0:.{self.digits}f}".replace("-", "−")


OVERLAP = (
    Metric("dice", "Dice", "", True),
    Metric("iou", "IoU", "", True),
    Metric("sensitivity", "Sensitivity", "", True),
    Metric("precision", "Precision", "", True),
)
SURFACE = (
    Metric("hd95", "HD95", "mm", False, 2),
    Metric("assd", "Average symmetric surface distance", "mm", False, 2),
)
VOLUME = (
    Metric("volume_reference", "Volume, reference", "ml", None, 2),
    Metric("volume_prediction", "Volume, prediction", "ml", None, 2),
    Metric("volume_difference", "Volume difference (prediction - reference)", "ml", None, 2),
    Metric("volume_error", "Absolute volume difference", "ml", False, 2),
)
LESIONS = (
    Metric("lesions_reference", "Lesions, reference", "", None, 1),
    Metric("lesions_prediction", "Lesions, prediction", "", None, 1),
    Metric("lesions_detected", "Lesions detected", "", True, 1),
    Metric("lesions_missed", "Lesions missed", "", False, 1),
    Metric("lesions_false", "False lesions", "", False, 1),
    Metric("lesion_count_error", "Absolute lesion count difference", "", False, 1),
    Metric("lesion_f1", "Lesion F1", "", True),
    Metric("lesion_dice", "Lesion-wise Dice", "", True),
    Metric("lesion_hd95", "Lesion-wise HD95", "mm", False, 2),
)
VOXELS = (
    Metric("tp", "Voxels in both", "", None, 0),
    Metric("fp", "Voxels in the prediction alone", "", None, 0),
    Metric("fn", "Voxels in the reference alone", "", None, 0),
    Metric("tn", "Voxels in neither", "", None, 0),
)
NSD_PREFIX = "nsd_"


def surface_dice(tolerance_mm: float) -> Metric:
    """Normalised surface Dice at a tolerance in mm; its key is, for example, nsd_1mm or nsd_0.5mm."""
    return Metric(f"{NSD_PREFIX}{tolerance_mm:g}mm", f"Surface Dice at {tolerance_mm:g} mm", "", True)


def metrics_for(tolerances_mm: tuple[float, ...]) -> tuple[Metric, ...]:
    """All metrics in table order, with one surface Dice per tolerance.

    Raises:
        UserError: a tolerance is not positive, or is repeated.
    """
    if any(not 0 < t < float("inf") for t in tolerances_mm) or len(set(tolerances_mm)) < len(tolerances_mm):
        raise UserError(
            f"invalid tolerances of surface Dice {tolerances_mm}: expected different positive numbers, in mm"
        )
    return (*OVERLAP, *SURFACE, *(surface_dice(t) for t in tolerances_mm), *VOLUME, *LESIONS, *VOXELS)
