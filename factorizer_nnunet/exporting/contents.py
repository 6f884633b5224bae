"""What an exported model contains besides weights: the files of the model folder, without names of cases and paths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.calibration.calibration_file import Calibration
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.exporting.calibration import calibration_to_export, write_exported
from factorizer_nnunet.exporting.scores import ScoredCases, given_scores, validation_scores
from factorizer_nnunet.nnunet.dataset_json import (
    CASES_KEY,
    CHANNELS_KEY,
    DATASET_FILE,
    DISPLAY_KEY,
    ENDING_KEY,
    LABELS_KEY,
    OLD_CHANNELS_KEY,
    READER_KEY,
    REGIONS_ORDER_KEY,
)
from factorizer_nnunet.nnunet.exported_model import LICENSE_FILE, NNUNET_POSTPROCESSING_FILE, SCORES_FILE
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE, INFERENCE_FILE, PLANS_FILE, ModelFolder
from factorizer_nnunet.nnunet.postprocessing import Steps, postprocessing_of, steps_content
from factorizer_nnunet.nnunet.training_images import ORIENTATIONS_KEY
from factorizer_nnunet.postprocessing.rule_file import write_postprocessing
from factorizer_nnunet.postprocessing.rules import Postprocessing
from factorizer_nnunet.prediction.model import TrainedModel, with_postprocessing

# Keys of dataset.json that predictions and the card need. The others, such as lists of cases, stay where they are.
_KEPT = (
    *(CHANNELS_KEY, OLD_CHANNELS_KEY, LABELS_KEY, REGIONS_ORDER_KEY, ENDING_KEY, READER_KEY, DISPLAY_KEY, CASES_KEY),
    *("name", "description", "reference", "licence", "release"),
)
# Of the fingerprint, with which predict and --quality compare images.
_OF_IMAGES = ("spacings", "shapes_after_crop", ORIENTATIONS_KEY)
_FIX = "Make it again with the command that wrote it, or move it away"


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is exported of a model besides its weights.

    Attributes:
        scores: of validation cases first.
        steps: of nnU-Net's postprocessing, which are not applied.
        rules: of postprocessing, which are applied.
        calibration: of the original.
        texts: contents of the other files by name.
        license_file: of the authors, copied as it is.
    """

    scores: Sequence[ScoredCases]
    steps: Steps
    rules: Postprocessing | None
    calibration: Calibration | None
    texts: Mapping[str, str]
    license_file: Path | None

    def write(self, folder: Path, checkpoints: Mapping[str, str]) -> None:
        """Write all files; ``checkpoints`` are the SHA-256 of the exported weights by fold.

        Raises:
            OSError: one cannot be written.
        """
        for name, text in self.texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        if self.license_file is not None:
            shutil.copyfile(self.license_file, folder / LICENSE_FILE)
        if self.rules is not None:
            write_postprocessing(ModelFolder(folder).postprocessing_file, self.rules, checkpoints, {})
        if self.calibration is not None:
            write_exported(self.calibration, folder, checkpoints)


def read_contents(
    model: TrainedModel, checkpoint: str, test_scores: Path | None, license_file: Path | None
) -> Contents:
    """Read and shorten the files of a model.

    Args:
        model: to export.
        checkpoint: file name of its checkpoints.
        test_scores: to add to those of the validation.
        license_file: of the authors.

    Raises:
        UserError: a file cannot be read, is about other checkpoints, or is not text where the card needs one.
    """
    if license_file is not None and not license_file.is_file():
        raise UserError(f"--license-file {license_file} does not exist. Name the text of the licence")
    folder, folds = ModelFolder(model.folder), list(model.folds)
    own = validation_scores(folder, folds, checkpoint, model.dataset)
    scores = [] if own is None else [own]
    if test_scores is not None:
        scores.append(given_scores(test_scores, model.dataset))
    steps = postprocessing_of(folder, folds) or ()
    return Contents(
        scores=scores,
        steps=steps,
        rules=with_postprocessing(model).description.postprocessing,
        calibration=calibration_to_export(model),
        texts=_texts(model, scores, steps),
        license_file=license_file,
    )


def _texts(model: TrainedModel, scores: Sequence[ScoredCases], steps: Steps) -> dict[str, str]:
    folder = ModelFolder(model.folder)
    dataset = {key: value for key, value in model.dataset.content.items() if key in _KEPT}
    dataset.setdefault("name", model.plans.plans.get("dataset_name", ""))
    texts = {PLANS_FILE: _json(folder.plans(_FIX)), DATASET_FILE: _json(dataset)}
    if folder.inference_file.is_file():
        # Where the folder was derived from is a path of this machine.
        content = load_json_object(folder.inference_file, _FIX)
        texts[INFERENCE_FILE] = _json({key: value for key, value in content.items() if key != "derived_from"})
    if (folder.path / FINGERPRINT_FILE).is_file():
        content = load_json_object(folder.path / FINGERPRINT_FILE, "Restore it as the training left it")
        if kept := {key: content[key] for key in _OF_IMAGES if key in content}:
            texts[FINGERPRINT_FILE] = _json(kept)
    if steps:
        texts[NNUNET_POSTPROCESSING_FILE] = _json(steps_content(steps))
    if scores:
        texts[SCORES_FILE] = _json([group.content() for group in scores])
    return texts


def normalization_in_words(model: TrainedModel) -> list[str]:
    """How each channel is normalised."""
    schemes, masks = model.configuration.normalization_schemes, model.configuration.use_mask_for_norm
    return [
        f"{scheme.removesuffix('Normalization')}{' within the nonzero part' if mask else ''}"
        for scheme, mask in zip(schemes, masks, strict=True)
    ]


def _json(content: Any) -> str:
    return json.dumps(content, indent=4) + "\n"
