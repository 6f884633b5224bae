"""Score a folder of predictions against a folder of references."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factorizer_nnunet.evaluation.scores import Scores

TOLERANCES_MM = (1.0, 2.0)  # of surface Dice


def evaluate_folder(
    predictions: Path,
    references: Path,
    dataset_json: Mapping[str, Any] | None = None,
    scheme: str = "none",
    num_processes: int = 1,
    tolerances_mm: tuple[float, ...] = TOLERANCES_MM,
) -> Scores:
    """Scores of all cases that have a file in both folders.

    Args:
        predictions: folder of label files, as nnUNetv2_predict writes them.
        references: folder of label files with the same names, such as labelsTr.
        dataset_json: content of the data set's dataset.json, which names labels or regions; None takes every label
            value found as a region of its own.
        scheme: a key of `SCHEMES`.
        num_processes: how many cases are scored at a time.
        tolerances_mm: of surface Dice.

    Raises:
        UserError: problems with files, all of them in one message.
    """
    raise NotImplementedError
