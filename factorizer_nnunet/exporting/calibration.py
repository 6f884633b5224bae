"""The quality calibration of a model, as its exported copy has it: about other files, and without names of patients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from factorizer_nnunet.calibration.calibration_file import (
    CALIBRATION_FILE,
    Calibration,
    read_calibration,
    write_calibration,
)
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE
from factorizer_nnunet.nnunet.training_images import ORIENTATIONS_KEY
from factorizer_nnunet.prediction.model import TrainedModel

# Of the fingerprint: the images of a prediction are compared with them.
_OF_IMAGES = ("spacings", "shapes_after_crop", ORIENTATIONS_KEY)


@dataclass(frozen=True)
class ExportedCalibration:
    """A calibration with the sizes of the training images; ``fingerprint`` is empty where the model has none."""

    calibration: Calibration
    fingerprint: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Of its files."""
        return (CALIBRATION_FILE, *([FINGERPRINT_FILE] if self.fingerprint else []))

    def write(self, folder: Path, checkpoints: Mapping[str, str]) -> None:
        """Write the files.

        Args:
            folder: of the exported model.
            checkpoints: SHA-256 of the weights of each fold in it.

        Raises:
            OSError: one cannot be written.
        """
        own = self.calibration
        kept = {fold: digest for fold, digest in checkpoints.items() if fold in own.checkpoints}
        exported = replace(
            own,
            checkpoints=kept,
            num_cases={fold: own.num_cases[fold] for fold in kept},
            regions={name: replace(region, cases=()) for name, region in own.regions.items()},
        )
        write_calibration(exported, folder)
        if self.fingerprint:
            (folder / FINGERPRINT_FILE).write_text(json.dumps(self.fingerprint, indent=1) + "\n", encoding="utf-8")


def exported_calibration(model: TrainedModel) -> ExportedCalibration | None:
    """The calibration of a model that is to be exported; None if it has none.

    Raises:
        UserError: it cannot be read, or is about other checkpoints.
    """
    calibration = read_calibration(model.folder)
    if calibration is None:
        return None
    checkpoints = {fold: checkpoint.digest for fold, checkpoint in model.folds.items()}
    if (problem := calibration.mismatch(checkpoints, calibration.settings)) is not None:
        raise UserError(
            f"{model.folder / CALIBRATION_FILE} does not fit: {problem}. Run factorizer-nnunet calibrate again, or "
            "remove the file"
        )
    fingerprint: dict[str, Any] = {}
    file = model.folder / FINGERPRINT_FILE
    if file.is_file():
        content = load_json_object(file, "Restore it as the training left it")
        fingerprint = {name: content[name] for name in _OF_IMAGES if name in content}
    return ExportedCalibration(calibration, fingerprint)
