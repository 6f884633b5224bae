"""The validation cases of a fold: which they are, their preprocessed images, and the Dice of a prediction.

Everything is read from where nnU-Net's own validation reads it, and nothing is written.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.evaluation.overlap import dice_of_regions
from factorizer_nnunet.evaluation.regions import regions_of
from factorizer_nnunet.evaluation.schemes import NONE
from factorizer_nnunet.nnunet.environment import nnunet_folder
from factorizer_nnunet.nnunet.names import SPLITS_FILE
from factorizer_nnunet.nnunet.raw_dataset import id_in_name
from factorizer_nnunet.prediction.model import TrainedModel


@dataclass(frozen=True)
class Image:
    """A preprocessed case.

    Attributes:
        data: (channels, *spatial), with the previous stage's segmentation behind the images in a cascade.
        properties: what nnU-Net needs for the way back to the image's grid.
        reference: labels on that grid.
    """

    data: torch.Tensor
    properties: dict[str, Any]
    reference: np.ndarray


class ValidationCases:
    """Validation cases of a model's folds.

    Args:
        model: whose plans say where the data are.

    Raises:
        UserError: there are no preprocessed data of the model's plans; naming folder and mend.
    """

    def __init__(self, model: TrainedModel) -> None:
        self.model = model
        plans, configuration = model.plans, model.first.configuration
        self.base = nnunet_folder("nnUNet_preprocessed", writable=False) / plans.dataset_name
        self.folder = self.base / model.settings.data_identifier
        self._mend = (
            f"run: nnUNetv2_preprocess -d {id_in_name(plans.dataset_name)} -plans_name {plans.plans_name} "
            f"-c {configuration}"
        )
        self.previous = None
        if model.settings.previous_stage_name is not None:
            stage = f"{model.first.trainer_name}__{plans.plans_name}__{model.settings.previous_stage_name}"
            self.previous = model.folder.parent / stage / "predicted_next_stage" / configuration
            if not self.previous.is_dir():
                raise UserError(
                    f"no {self.previous}: a cascade is validated on the previous stage's predictions of all cases; "
                    f"train its folds first"
                )
        if not self.folder.is_dir():
            raise UserError(f"no preprocessed data in {self.folder}; {self._mend}")
        try:
            self._dataset = infer_dataset_class(str(self.folder))
        except (AssertionError, IndexError, KeyError) as error:  # as nnU-Net meets a folder without cases
            raise UserError(f"{self.folder} holds no preprocessed cases; {self._mend}") from error
        self.regions = regions_of(model.description, NONE, frozenset())

    def of_fold(self, fold: str) -> list[str]:
        """Names of a fold's validation cases, checked to be there.

        Raises:
            UserError: it has none, or some lack preprocessed data or reference.
        """
        if fold == "all":
            raise UserError(
                "fold all was trained on every case and has none to be measured on; name folds that left some out "
                "with -f"
            )
        cases = self._split(int(fold))
        if not cases:
            raise UserError(f"{self.base / SPLITS_FILE} has no validation cases of fold {fold}; name others with -f")
        lacking = [case for case in cases if not (self.folder / f"{case}.pkl").is_file()]
        if lacking:
            raise UserError(
                f"{self.folder} lacks {len(lacking)} of the {len(cases)} validation cases of fold {fold} "
                f"({first_few(lacking)}); {self._mend}"
            )
        unknown = [case for case in cases if not self._reference(case).is_file()]
        if unknown:
            raise UserError(
                f"{self._reference(unknown[0]).parent} lacks the reference segmentation of {first_few(unknown)}; "
                f"{self._mend}"
            )
        return cases

    def load(self, case: str) -> Image:
        """Read a case as nnU-Net's validation does.

        Raises:
            UserError: its files are damaged, or its reference has another shape.
        """
        try:
            image = self._read(case)
        except Exception as error:  # readers of several formats, each with exceptions of its own
            raise UserError(
                f"{case} cannot be read from {self.folder} and {self._reference(case)} "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); {self._mend}"
            ) from error
        backward = self.model.plans.transpose_backward
        shape = tuple(image.properties["shape_before_cropping"][axis] for axis in backward)
        if image.reference.shape != shape:
            raise UserError(
                f"{self._reference(case)} has shape {image.reference.shape}, its image {shape}; {self._mend}"
            )
        return image

    def _read(self, case: str) -> Image:
        folder = None if self.previous is None else str(self.previous)
        data, _, previous, properties = self._dataset(
            str(self.folder), [case], folder_with_segs_from_previous_stage=folder
        ).load_case(case)
        data = np.array(data[:], np.float32)
        if self.previous is not None:
            labels = self.model.plans.get_label_manager(self.model.description).foreground_labels
            data = np.vstack((data, convert_labelmap_to_one_hot(previous[:], labels, data.dtype)))
        reference = self.model.plans.image_reader_writer_class().read_seg(str(self._reference(case)))[0][0]
        return Image(torch.from_numpy(data), properties, reference)

    def segmentation(self, logits: torch.Tensor, image: Image) -> np.ndarray:
        """Logits (classes, *spatial) as labels on the image's own grid."""
        manager = self.model.plans.get_label_manager(self.model.description)
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, self.model.plans, self.model.settings, manager, image.properties
        )

    def dice(self, segmentation: np.ndarray, image: Image) -> dict[str, float | None]:
        """Dice of every region; None, as for nnU-Net, where it is in neither reference nor prediction."""
        return dice_of_regions(segmentation, image.reference, self.regions.labels, self.regions.ignore)

    def _reference(self, case: str) -> Path:
        return self.base / "gt_segmentations" / f"{case}{self.model.file_ending}"

    def _split(self, fold: int) -> list[str]:
        """As nnU-Net's trainer decides: by the file of folds, its own five without one, random ones beyond."""
        file = self.base / SPLITS_FILE
        names = sorted(self._dataset.get_identifiers(str(self.folder)))
        try:
            splits = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            splits = generate_crossval_split(names, seed=12345, n_splits=5)
        except ValueError as error:
            raise UserError(f"{file} is not valid JSON ({error}); restore it") from error
        try:
            if fold < len(splits):
                return [str(case) for case in splits[fold]["val"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"{file}: fold {fold} has no list of cases under 'val'; restore it") from error
        drawn = np.random.RandomState(12345 + fold).choice(len(names), int(len(names) * 0.8), replace=False)
        return [name for place, name in enumerate(names) if place not in drawn]


def mean_dice(dice: Mapping[str, float | None]) -> float:
    """Mean over the regions that a case has; NaN where it has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of numpy, for a mean over nothing
        return float(np.nanmean(np.array(list(dice.values()), float)))
