"""What a model's ``plans.json`` and ``dataset.json`` say; worker processes get it with every case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import BACKGROUND, ENDING_KEY, LABELS_KEY, DatasetJson
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.nnunet.training_images import TrainingImages, training_images
from factorizer_nnunet.nnunet.trusted_classes import check_named_code
from factorizer_nnunet.postprocessing.rules import Postprocessing
from factorizer_nnunet.prediction.plan_checks import check_dataset_for_prediction, check_plans_for_prediction

NO_NORMALISATION = "NoNormalization"  # the scheme of nnU-Net that leaves intensities as they are
_FIX = (
    "Restore it as the training left it, or name a model folder, TRAINER__PLANS__CONFIGURATION in nnUNet_results, in "
    "which a training has started"
)


@dataclass(frozen=True)
class ModelDescription:
    """Plans and data set of a model, and the configuration that was trained.

    Attributes:
        takes_absent: whether its folds were trained to predict without some channels, see ``nnunet.absent_channels``.
        postprocessing: rules that its segmentations are postprocessed by; None: they are not.
        training: voxel sizes and extents of the images that it was trained with.
    """

    plans: PlansManager
    configuration: ConfigurationManager
    dataset: DatasetJson
    takes_absent: bool = False
    postprocessing: Postprocessing | None = None
    training: TrainingImages = TrainingImages()

    @property
    def labels(self) -> LabelManager:
        """nnU-Net's view of the labels."""
        return self.plans.get_label_manager(self.dataset.content)

    @property
    def region_outputs(self) -> dict[str, int]:
        """The network's output of each label or region of ``dataset.json``, by its name."""
        regions, labels = self.dataset.regions, self.labels
        if labels.has_regions:
            return {name: number for number, name in enumerate(regions)}
        values = [int(value) for value in labels.all_labels]
        return {name: values.index(region[0]) for name, region in regions.items()}

    @property
    def output_names(self) -> tuple[str, ...]:
        """What each output of the network stands for: regions, or background and labels."""
        names = {number: name for name, number in self.region_outputs.items()}
        return tuple(names.get(number, BACKGROUND) for number in range(self.labels.num_segmentation_heads))

    @property
    def num_input_channels(self) -> int:
        """Input channels of the network: those of an image and, in a cascade, of the previous stage's labels."""
        return determine_num_input_channels(self.plans, self.configuration, self.dataset.content)


def read_description(folder: ModelFolder, configuration: str, trusted: bool = False) -> ModelDescription:
    """Read the two files of a model.

    Args:
        folder: the model folder.
        configuration: which the folds were trained with.
        trusted: whether the plans may name code of any package.

    Raises:
        UserError: a file cannot be read, has a wrong value, names code that is not nnU-Net's or ours, or lacks
            something, such as the configuration.
    """
    dataset, plans = folder.dataset(_FIX), folder.plans(_FIX)
    _check_keys(folder.dataset_file, dataset.content, (LABELS_KEY, ENDING_KEY))
    _check_keys(folder.plans_file, plans, ("plans_name", "configurations", "image_reader_writer"))
    check_dataset_for_prediction(dataset)
    settings = check_plans_for_prediction(plans, configuration, str(folder.plans_file), dataset)
    previous = settings.get("previous_stage")
    if not trusted:
        for name in (configuration, previous) if previous in plans["configurations"] else (configuration,):
            check_named_code(plans, str(name), str(folder.plans_file))
    manager = PlansManager(plans)
    try:
        training = training_images(folder.path)
        description = ModelDescription(manager, manager.get_configuration(configuration), dataset, training=training)
        _ = description.num_input_channels, description.labels  # nnU-Net reads further values for these
    except Exception as error:  # plans of old versions are translated, which fails in many ways
        raise UserError(
            f"{folder.plans_file}, configuration {configuration} cannot be used "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). Restore it as the training left it"
        ) from error
    return description


def _check_keys(path: Path, content: Mapping[str, Any], needed: Sequence[str]) -> None:
    if missing := [key for key in needed if key not in content]:
        raise UserError(f"{path} lacks {', '.join(missing)}: restore it as the training left it")
