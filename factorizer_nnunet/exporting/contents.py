"""What an exported model contains besides weights: the files of the model folder, without names of cases and paths."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.exporting.scores import ScoredCases
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
from factorizer_nnunet.nnunet.postprocessing import Steps, steps_content
from factorizer_nnunet.nnunet.training_images import ORIENTATIONS_KEY
from factorizer_nnunet.prediction.model import TrainedModel

# Keys of dataset.json that predictions and the card need. The others, such as lists of cases, stay where they are.
_KEPT = (
    *(CHANNELS_KEY, OLD_CHANNELS_KEY, LABELS_KEY, REGIONS_ORDER_KEY, ENDING_KEY, READER_KEY, DISPLAY_KEY, CASES_KEY),
    *("name", "description", "reference", "licence", "release"),
)
# Of the fingerprint, with which predict and --quality compare images.
_OF_IMAGES = ("spacings", "shapes_after_crop", ORIENTATIONS_KEY)
_FIX = "Make it again with the command that wrote it, or move it away"


@dataclass(frozen=True, kw_only=True)
class SmallFiles:
    """The small files of an exported model.

    Attributes:
        texts: their contents by name.
        license_file: of the authors, copied as it is.
    """

    texts: dict[str, str]
    license_file: Path | None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all of them."""
        return (*self.texts, *([LICENSE_FILE] if self.license_file is not None else []))

    def write(self, folder: Path) -> None:
        """Write all files.

        Raises:
            OSError: one cannot be written.
        """
        for name, text in self.texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        if self.license_file is not None:
            shutil.copyfile(self.license_file, folder / LICENSE_FILE)


def small_files(
    model: TrainedModel, scores: list[ScoredCases], steps: Steps | None, license_file: Path | None
) -> SmallFiles:
    """Read and shorten the files of a model.

    Raises:
        UserError: a file cannot be read, or the data set's name, a text for the card, is not text.
    """
    if license_file is not None and not license_file.is_file():
        raise UserError(f"--license-file {license_file} does not exist. Name the text of the licence")
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
    return SmallFiles(texts=texts, license_file=license_file)


def normalization_in_words(model: TrainedModel) -> list[str]:
    """How each channel is normalised."""
    schemes, masks = model.configuration.normalization_schemes, model.configuration.use_mask_for_norm
    return [
        f"{scheme.removesuffix('Normalization')}{' within the nonzero part' if mask else ''}"
        for scheme, mask in zip(schemes, masks, strict=True)
    ]


def _json(content: Any) -> str:
    return json.dumps(content, indent=4) + "\n"
