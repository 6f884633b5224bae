"""What a model's ``plans.json`` and ``dataset.json`` say; worker processes get it with every case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.model_folder import ModelFolder

_FIX = "Name a model folder, TRAINER__PLANS__CONFIGURATION in nnUNet_results, in which a training has started"


@dataclass(frozen=True)
class ModelDescription:
    """Plans and data set of a model, and the configuration that was trained."""

    plans: PlansManager
    configuration: ConfigurationManager
    dataset: DatasetJson

    @property
    def labels(self) -> LabelManager:
        """nnU-Net's view of the labels."""
        return self.plans.get_label_manager(self.dataset.content)

    @property
    def num_input_channels(self) -> int:
        """Input channels of the network: those of an image and, in a cascade, of the previous stage's labels."""
        return determine_num_input_channels(self.plans, self.configuration, self.dataset.content)


def read_description(folder: ModelFolder, configuration: str) -> ModelDescription:
    """Read the two files of a model.

    Args:
        folder: the model folder.
        configuration: which the folds were trained with.

    Raises:
        UserError: a file cannot be read or lacks something, such as the configuration.
    """
    dataset, plans = folder.dataset(_FIX), folder.plans(_FIX)
    _check_keys(folder.dataset_file, dataset.content, ("labels", "file_ending"))
    _check_keys(folder.plans_file, plans, ("plans_name", "configurations"))
    manager = PlansManager(plans)
    if configuration not in manager.available_configurations:
        raise UserError(f"{folder.plans_file} has no configuration {configuration}, which the folds have")
    return ModelDescription(manager, manager.get_configuration(configuration), dataset)


def _check_keys(path: Path, content: Mapping[str, Any], needed: Sequence[str]) -> None:
    if missing := [key for key in needed if key not in content]:
        raise UserError(f"{path} lacks {', '.join(missing)}: restore it as the training left it")
