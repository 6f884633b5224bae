"""The quality calibration of a model, as its exported copy has it: about other files, and without names of patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from factorizer_nnunet.calibration.calibration_file import (
    CALIBRATION_FILE,
    Calibration,
    read_calibration,
    write_calibration,
)
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.prediction.model import TrainedModel


def calibration_to_export(model: TrainedModel) -> Calibration | None:
    """The calibration of a model that is to be exported; None if it has none, or none of these folds.

    Raises:
        UserError: it cannot be read, or is about other checkpoints.
    """
    calibration = read_calibration(model.folder)
    if calibration is None or not model.folds.keys() & calibration.checkpoints.keys():
        return None
    checkpoints = {fold: checkpoint.digest for fold, checkpoint in model.folds.items()}
    if (problem := calibration.mismatch(checkpoints, calibration.settings)) is not None:
        raise UserError(
            f"{model.folder / CALIBRATION_FILE} does not fit: {problem}. Run factorizer-nnunet calibrate again, or "
            "remove the file"
        )
    return calibration


def write_exported(calibration: Calibration, folder: Path, checkpoints: Mapping[str, str]) -> None:
    """Write the calibration of an exported model.

    Args:
        calibration: of the original.
        folder: of the exported model.
        checkpoints: SHA-256 of the weights of each fold in it.

    Raises:
        OSError: it cannot be written.
    """
    kept = {fold: digest for fold, digest in checkpoints.items() if fold in calibration.checkpoints}
    exported = replace(
        calibration,
        checkpoints=kept,
        num_cases={fold: calibration.num_cases[fold] for fold in kept},
        regions={name: replace(region, cases=()) for name, region in calibration.regions.items()},
    )
    write_calibration(exported, folder)
