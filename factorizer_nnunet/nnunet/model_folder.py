"""A trained model's folder ``TRAINER__PLANS__CONFIGURATION`` in nnUNet_results. Imports neither torch nor nnU-Net."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson
from factorizer_nnunet.nnunet.model_name import ModelName, cross_validation_folder

PLANS_FILE = "plans.json"
FINGERPRINT_FILE = "dataset_fingerprint.json"
SUMMARY_FILE = "summary.json"  # nnU-Net's scores of a folder of predictions
INFERENCE_FILE = "factorizer_inference.json"  # ours, see ``inference_settings``
POSTPROCESSING_FILE = "factorizer_postprocessing.json"  # ours, see ``postprocessing.rule_file``
PREDICTION_FILE = "predict_from_raw_data_args.json"  # written into the output folder when a prediction begins
RULES_KEY = "postprocessing"  # entry of our records of predictions; without it, nothing was postprocessed

CHECKPOINT_FINAL = "checkpoint_final.pth"  # of a finished training
CHECKPOINT_LATEST = "checkpoint_latest.pth"
CHECKPOINT_BEST = "checkpoint_best.pth"
CHECKPOINTS = (CHECKPOINT_FINAL, CHECKPOINT_LATEST, CHECKPOINT_BEST)  # nnUNetv2_train --c takes the first that exists

_FOLD = "fold_"
ALL_CASES = "all"  # the fold that trains on every case


@dataclass(frozen=True)
class FoldFolder:
    """The folder of one fold of a model, ``fold_X``; it need not exist."""

    path: Path

    @property
    def name(self) -> str:
        """``0``, ``1``, … or ``all``."""
        return self.path.name.removeprefix(_FOLD)

    @property
    def validation(self) -> Path:
        """The folder of predictions of the validation cases."""
        return self.path / "validation"

    @property
    def summary(self) -> Path:
        """The scores of the validation cases, which nnU-Net writes last."""
        return self.validation / SUMMARY_FILE

    def checkpoint(self, name: str = CHECKPOINT_FINAL) -> Path:
        return self.path / name

    def last_checkpoint(self) -> Path | None:
        """The checkpoint from which training continues; None if there is none."""
        return next((self.path / name for name in CHECKPOINTS if (self.path / name).is_file()), None)


@dataclass(frozen=True)
class ModelFolder:
    """The files of a model; the folder need not exist."""

    path: Path

    @property
    def name(self) -> ModelName | None:
        """Trainer, plans and configuration; None if the folder is not named after them."""
        return ModelName.parse(self.path.absolute().name)

    @property
    def plans_file(self) -> Path:
        return self.path / PLANS_FILE

    @property
    def dataset_file(self) -> Path:
        return self.path / DATASET_FILE

    @property
    def inference_file(self) -> Path:
        return self.path / INFERENCE_FILE

    @property
    def postprocessing_file(self) -> Path:
        return self.path / POSTPROCESSING_FILE

    def plans(self, fix: str) -> dict[str, Any]:
        """Read the plans.

        Raises:
            UserError: they cannot be read; the message ends with ``fix``.
        """
        return load_json_object(self.plans_file, fix)

    def dataset(self, fix: str) -> DatasetJson:
        """Read ``dataset.json``.

        Raises:
            UserError: it cannot be read; the message ends with ``fix``.
        """
        return DatasetJson.read(self.dataset_file, fix)

    def describe(self, plans: Mapping[str, Any], dataset_json: Mapping[str, Any], fingerprint: Path) -> None:
        """Write the plans and ``dataset.json``, and copy the fingerprint if the file exists."""
        for file, content in ((self.plans_file, plans), (self.dataset_file, dataset_json)):
            file.write_text(json.dumps(content, indent=4), encoding="utf-8")
        if fingerprint.is_file():
            shutil.copyfile(fingerprint, self.path / FINGERPRINT_FILE)

    def fold(self, fold: int | str) -> FoldFolder:
        return FoldFolder(self.path / f"{_FOLD}{fold}")

    def folds(self, checkpoint: str | None = None) -> list[FoldFolder]:
        """The existing folds, sorted by name; with ``checkpoint`` those that have a checkpoint of this name."""
        folds = [FoldFolder(path) for path in sorted(self.path.glob(f"{_FOLD}*")) if path.is_dir()]
        return folds if checkpoint is None else [fold for fold in folds if fold.checkpoint(checkpoint).is_file()]

    def numbered_folds(self, checkpoint: str | None = None) -> list[FoldFolder]:
        """As ``folds``, in the order of numbers, without ``fold_all``: trained on every case, it validates none."""
        numbered = (fold for fold in self.folds(checkpoint) if fold.name.isdecimal())
        return sorted(numbered, key=lambda fold: int(fold.name))

    def next_stage(self, configuration: str) -> Path:
        """The folder of low-resolution segmentations for the cascade ``configuration``."""
        return self.path / "predicted_next_stage" / configuration

    def cross_validation(self, folds: Iterable[int]) -> Path:
        """The folder of validation predictions of several folds, collected by nnUNetv2_find_best_configuration."""
        return self.path / cross_validation_folder(folds)


def is_fold_name(text: str) -> bool:
    """Whether a text names a fold: a number, or ``all``."""
    return text == ALL_CASES or re.fullmatch(r"0|[1-9]\d*", text) is not None


def is_fold(path: Path) -> bool:
    """Whether a folder is named like a fold."""
    return path.name.removeprefix(_FOLD).isalnum() and path.name.startswith(_FOLD)
