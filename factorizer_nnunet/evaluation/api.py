"""Scores from Python, with paths as text and arrays as they are."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from factorizer_nnunet.evaluation import evaluate
from factorizer_nnunet.evaluation.case import TOLERANCES_MM, score_arrays
from factorizer_nnunet.evaluation.dataset_files import find_dataset_json
from factorizer_nnunet.evaluation.schemes import scheme_named
from factorizer_nnunet.evaluation.scores import Scores
from factorizer_nnunet.nnunet.dataset_json import DatasetJson

PathLike = str | os.PathLike[str]


def evaluate_arrays(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float],
    regions: Mapping[str, int | Iterable[int]] | None = None,
    *,
    tolerances_mm: Sequence[float] = TOLERANCES_MM,
    ignore: int | None = None,
) -> dict[str, dict[str, float]]:
    """Score one case.

    Args:
        prediction, reference: integer labels on the same grid, 2D or 3D.
        spacing: voxel size in mm along each axis of the arrays.
        regions: label value, or values, by region name; None makes every label value that occurs a region.
        tolerances_mm: of surface Dice.
        ignore: label of the reference whose voxels are treated as outside the image.

    Returns:
        values by region and metric; NaN where a metric is undefined.

    Raises:
        ValueError: the arrays are not integer labels of one shape, or the spacing does not fit them.

    Examples:
        >>> import numpy as np
        >>> reference = np.zeros((20, 32, 32), np.uint8)
        >>> reference[5:15, 8:24, 8:24] = 1
        >>> prediction = np.roll(reference, 1, axis=0)
        >>> scores = evaluate_arrays(prediction, reference, (2.0, 1.0, 1.0), {"lesion": 1})
        >>> round(scores["lesion"]["dice"], 2), scores["lesion"]["hd95"]
        (0.9, 2.0)
    """
    for name, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype != bool and not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} has the type {array.dtype}: expected integer labels")
    if len(spacing) != reference.ndim or not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise ValueError(f"spacing {tuple(spacing)}: expected {reference.ndim} sizes above 0 in mm, one for each axis")
    if regions is None:
        found = np.union1d(prediction, reference).astype(int)
        regions = {f"label {value}": value for value in found.tolist() if value not in (0, ignore)}
    values = {name: (one,) if isinstance(one, int) else tuple(one) for name, one in regions.items()}
    sizes = tuple(float(mm) for mm in spacing)
    scores = score_arrays(
        prediction.astype(np.int64),
        reference.astype(np.int64),
        sizes,
        values,
        tolerances_mm=tuple(tolerances_mm),
        ignore=ignore,
    )
    return {name: region.values for name, region in scores.items()}


def evaluate_folder(
    predictions: PathLike,
    references: PathLike,
    *,
    dataset_json: PathLike | None = None,
    scheme: str = "none",
    tolerances_mm: Sequence[float] = TOLERANCES_MM,
    num_processes: int = 1,
    only_common: bool = False,
    ignore_geometry: bool = False,
) -> Scores:
    """Score the label files of two folders that have the same names, as ``factorizer-nnunet evaluate`` does.

    Args:
        predictions, references: folders.
        dataset_json: names labels or regions; None: the one in or above ``predictions`` or next to ``references``;
            without any, every label value is a region.
        scheme: score as in this challenge, such as ``brats2023-gli``.
        tolerances_mm: of surface Dice.
        num_processes: number of cases scored at the same time.
        only_common: score only cases that are in both folders.
        ignore_geometry: score files of the same shape even if their geometry differs.

    Raises:
        UserError: invalid arguments, or files that cannot be scored; all problems with files in one message.

    Examples:
        >>> scores = evaluate_folder("predictions", "labelsTr")
        >>> scores.regions
        ('rim', 'core')
        >>> round(scores.summary("rim", "dice").mean, 2)
        1.0
    """
    folders = Path(predictions), Path(references)
    if dataset_json is None:
        dataset = find_dataset_json(*folders)
    else:
        dataset = DatasetJson.read(Path(dataset_json), "Name another file")
    return evaluate.evaluate_folder(
        *folders,
        dataset,
        scheme_named(scheme),
        tuple(tolerances_mm),
        num_processes,
        only_common=only_common,
        ignore_geometry=ignore_geometry,
    )
