"""How well held-out patients are segmented: Dice per region, for each fold and for the ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.dataset_conversion.spec import Scheme

Scores = dict[str, float]  # Dice by region, plus their mean under MEAN
MEAN = "mean"


def dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return 2|A∩B| / (|A|+|B|) of two masks of one shape; 1 if both are empty, as BraTS scores it."""
    total = int(truth.sum()) + int(prediction.sum())
    return 2 * int((truth & prediction).sum()) / total if total else 1.0


def read_volume(path: Path) -> np.ndarray:
    """Return the voxels of a NIfTI file, (z, y, x)."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def score_folder(scheme: Scheme, truth: Path, predictions: Path) -> Scores:
    """Return the mean Dice over patients of each region, and the mean over regions.

    `truth` holds segmentations with the release's values, which `scheme` maps, `predictions` those of nnU-Net under
    the same names.

    Raises:
        FileNotFoundError: a patient has no prediction; a mean over fewer patients would look like a mean over all.
    """
    per_region: dict[str, list[float]] = {region: [] for region in scheme.regions}
    for path in sorted(truth.glob("*.nii.gz")):
        expected = scheme.labels.apply(read_volume(path))
        predicted = read_volume(predictions / path.name)
        for region, values in scheme.regions.items():
            per_region[region].append(dice(np.isin(expected, values), np.isin(predicted, values)))
    scores = {region: float(np.mean(values)) for region, values in per_region.items()}
    return {**scores, MEAN: float(np.mean(list(scores.values())))}


def mean_scores(scores: list[Scores]) -> Scores:
    """Return the mean of several scores, region by region."""
    return {key: float(np.mean([score[key] for score in scores])) for key in scores[0]}


def markdown_table(rows: Mapping[str, Scores]) -> str:
    """Return the table of scores by row name, as Markdown that also reads well in a terminal."""
    widths = {column: max(len(column), len("0.000")) for column in next(iter(rows.values()))}
    width = max(len(name) for name in rows)
    lines = [
        f"| {'Dice':<{width}} | " + " | ".join(f"{column:>{wide}}" for column, wide in widths.items()) + " |",
        f"|{'-' * (width + 2)}|" + "|".join("-" * (wide + 1) + ":" for wide in widths.values()) + "|",
    ]
    for name, score in rows.items():
        cells = " | ".join(f"{score[column]:>{wide}.3f}" for column, wide in widths.items())
        lines.append(f"| {name:<{width}} | {cells} |")
    return "\n".join(lines) + "\n"
