"""The metrics as records: what they are called, their unit, and which way is better; computing them is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from factorizer_nnunet.core.errors import UserError


@dataclass(frozen=True)
class Metric:
    """One number per case and region.

    `higher_is_better` is None where neither is, as for a volume.
    """

    key: str  # in scores.csv and summary.json
    title: str  # in tables and figures
    unit: str  # "" for fractions and counts, else mm or ml
    higher_is_better: bool | None
    digits: int = 3  # after the point, in tables

    @property
    def is_count(self) -> bool:
        """Whether it counts lesions or voxels."""
        return self.digits < 2


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
    """Normalised surface Dice at a tolerance in mm; its key is such as nsd_1mm or nsd_0.5mm."""
    return Metric(f"{NSD_PREFIX}{tolerance_mm:g}mm", f"Surface Dice at {tolerance_mm:g} mm", "", True)


def metrics_for(tolerances_mm: tuple[float, ...]) -> tuple[Metric, ...]:
    """All metrics in the order of tables, with one surface Dice per tolerance.

    Raises:
        UserError: a tolerance is not positive or given twice.
    """
    if any(not 0 < t < float("inf") for t in tolerances_mm) or len(set(tolerances_mm)) < len(tolerances_mm):
        raise UserError(f"tolerances of surface Dice {tolerances_mm}: give different numbers above 0, in mm")
    return (*OVERLAP, *SURFACE, *(surface_dice(t) for t in tolerances_mm), *VOLUME, *LESIONS, *VOXELS)
