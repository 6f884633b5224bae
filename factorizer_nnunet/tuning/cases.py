"""The validation cases of a fold: their names, their preprocessed images, and the Dice of a prediction.

Everything is read from where nnU-Net's own validation reads it; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of, stamp_of_value
from factorizer_nnunet.core.json_files import json_or_none
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.evaluation.overlap import dice_of_regions
from factorizer_nnunet.nnunet.absent_channels import leave_out
from factorizer_nnunet.nnunet.environment import nnunet_folder
from factorizer_nnunet.nnunet.folds import default_folds, read_folds
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import LABEL_FOLDER, SPLITS_FILE, id_in_name
from factorizer_nnunet.nnunet.safe_pickle import read_pickle
from factorizer_nnunet.prediction.model import TrainedModel
from factorizer_nnunet.prediction.segmentation import Output, segmentation_of


@dataclass(frozen=True)
class ValidationCase:
    """A preprocessed case."""

    data: torch.Tensor  # (channels, *spatial); in a cascade, the previous stage's segmentation follows the image
    properties: dict[str, Any]  # what nnU-Net needs to return to the image's grid
    reference: np.ndarray  # labels on that grid


class ValidationCases:
    """Validation cases of a model's folds.

    Raises:
        UserError: data preprocessed by the model's plans are missing; the message says how to make them.
    """

    def __init__(self, model: TrainedModel) -> None:
        self.model = model
        plans, configuration = model.plans, model.first.configuration
        self.base = nnunet_folder("nnUNet_preprocessed", writable=False) / plans.dataset_name
        self.folder = self.base / model.configuration.data_identifier
        self._fix = (
            f"run: nnUNetv2_preprocess -d {id_in_name(plans.dataset_name)} -plans_name {plans.plans_name} "
            f"-c {configuration}"
        )
        self.previous = None
        if model.configuration.previous_stage_name is not None:
            name = ModelName(model.first.trainer_name, plans.plans_name, model.configuration.previous_stage_name)
            self.previous = ModelFolder(model.folder.parent / name.folder).next_stage(configuration)
            if not self.previous.is_dir():
                raise UserError(
                    f"{self.previous} is missing: a cascade is validated on the previous stage's predictions of all "
                    "cases; train its folds first"
                )
        if not self.folder.is_dir():
            raise UserError(f"no preprocessed data in {self.folder}; {self._fix}")
        try:
            self._dataset = infer_dataset_class(str(self.folder))
        except (AssertionError, IndexError, KeyError) as error:  # what nnU-Net raises for a folder without cases
            raise UserError(f"{self.folder} contains no preprocessed cases; {self._fix}") from error

    def of_fold(self, fold: str) -> list[str]:
        """Names of a fold's validation cases, whose files have been checked to exist.

        Raises:
            UserError: there are none, or some lack preprocessed data or reference.
        """
        if fold == "all":
            raise UserError(
                "fold all was trained on every case and has no validation cases; name with -f folds that left some out"
            )
        cases = self._validation_cases(int(fold))
        if not cases:
            raise UserError(f"{self.base / SPLITS_FILE} has no validation cases of fold {fold}; name others with -f")
        self._check_not_trained_on(fold, cases)
        missing = [case for case in cases if not (self.folder / f"{case}.pkl").is_file()]
        if missing:
            raise UserError(
                f"{self.folder} lacks {len(missing)} of the {len(cases)} validation cases of fold {fold} "
                f"({first_few(missing)}); {self._fix}"
            )
        missing = [case for case in cases if not self._reference(case).is_file()]
        if missing:
            raise UserError(
                f"{self._reference(missing[0]).parent} lacks the reference segmentation of {first_few(missing)}; "
                f"{self._fix}"
            )
        return cases

    def _check_not_trained_on(self, fold: str, cases: Iterable[str]) -> None:
        """Compare with the cases that the fold was validated on, if it was: since its training, folds may be others."""
        summary = json_or_none(ModelFolder(self.model.folder).fold(fold).summary)
        if not isinstance(summary, dict):
            return
        ending = self.model.file_ending
        scored = [str(one.get("reference_file")) for one in summary.get("metric_per_case", []) if isinstance(one, dict)]
        others = sorted(set(cases) - {Path(file).name.removesuffix(ending) for file in scored})
        if scored and others:
            raise UserError(
                f"{self.base / SPLITS_FILE} names validation cases of fold {fold} on which it was not validated "
                f"({first_few(others)}): it may have been trained on them. Restore the folds of its training"
            )

    def load(self, case: str) -> ValidationCase:
        """Read a case as nnU-Net's validation does.

        Raises:
            UserError: its files are damaged, its reference differs from the image in shape, or unpickling its
                properties would execute code.
        """
        read_pickle(self.folder / f"{case}.pkl")  # nnU-Net unpickles it without looking
        try:
            loaded = self._read(case)
        except Exception as error:  # readers of several formats, each with exceptions of its own
            raise UserError(
                f"{case} cannot be read from {self.folder} and {self._reference(case)} "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); {self._fix}"
            ) from error
        backward = self.model.plans.transpose_backward
        shape = tuple(loaded.properties["shape_before_cropping"][axis] for axis in backward)
        if loaded.reference.shape != shape:
            raise UserError(
                f"{self._reference(case)} has shape {loaded.reference.shape}, its image {shape}; {self._fix}"
            )
        return loaded

    def shape(self, case: str) -> tuple[int, ...]:
        """The size of a preprocessed image, which is not read; raises as ``load`` does."""
        read_pickle(self.folder / f"{case}.pkl")  # nnU-Net unpickles it without looking
        try:
            return tuple(self._dataset(str(self.folder), [case]).load_case(case)[0].shape[1:])
        except Exception as error:  # as in ``load``
            raise UserError(
                f"{case} cannot be read from {self.folder} ({type(error).__name__}); {self._fix}"
            ) from error

    def _read(self, case: str) -> ValidationCase:
        folder = None if self.previous is None else str(self.previous)
        data, _, previous, properties = self._dataset(
            str(self.folder), [case], folder_with_segs_from_previous_stage=folder
        ).load_case(case)
        data = np.array(data[:], np.float32)
        if self.model.description.takes_absent:
            data = leave_out(data, self.model.dataset.absent_channels.get(case, ()))
        if self.previous is not None:
            labels = self.model.description.labels.foreground_labels
            data = np.vstack((data, convert_labelmap_to_one_hot(previous[:], labels, data.dtype)))
        reference = self.model.plans.image_reader_writer_class().read_seg(str(self._reference(case)))[0][0]
        return ValidationCase(torch.from_numpy(data), properties, reference)

    def segmentation(self, logits: torch.Tensor, case: ValidationCase) -> np.ndarray:
        """Logits (classes, *spatial) as labels on the image's own grid."""
        return segmentation_of(Output(logits.unbind(1), logits.shape[1:], case.properties, self.model.description))

    def dice(self, segmentation: np.ndarray, case: ValidationCase) -> dict[str, float | None]:
        """Dice of every region; None, as in nnU-Net, if it is in neither reference nor prediction."""
        dataset = self.model.dataset
        return dice_of_regions(segmentation, case.reference, dataset.regions, dataset.ignore_label)

    def version(self, case: str) -> str:
        """A digest of what a case's score depends on, apart from the model.

        That is the reference segmentation, and size and time of the preprocessed properties, which change with the
        image, and of the previous stage's segmentation; these are not read.
        """
        files = [self.folder / f"{case}.pkl"]
        if self.previous is not None:
            files += sorted(self.previous.glob(f"{case}.*"))
        versions = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        return stamp_of_value([stamp_of(self._reference(case)).sha256, versions]).sha256

    def _reference(self, case: str) -> Path:
        return self.base / LABEL_FOLDER / f"{case}{self.model.file_ending}"

    def _validation_cases(self, fold: int) -> list[str]:
        """As in nnU-Net's trainer: from the file of folds, else nnU-Net's own five; higher folds are random splits."""
        file = self.base / SPLITS_FILE
        names = sorted(self._dataset.get_identifiers(str(self.folder)))
        folds = read_folds(file) or default_folds(names)
        try:
            if fold < len(folds):
                return [str(case) for case in folds[fold]["val"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"{file}: fold {fold} has no list of cases under 'val'; restore it") from error
        training = np.random.RandomState(12345 + fold).choice(len(names), int(len(names) * 0.8), replace=False)
        return [name for index, name in enumerate(names) if index not in training]


def mean_of_known(values: Iterable[float | None]) -> float:
    """Mean of the values that are not None; NaN if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")
