"""A model folder of nnU-Net as a predictor, ready for images."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.checkpoint import FoldCheckpoint, read_fold
from factorizer_nnunet.nnunet.inference_settings import InferenceSettings, settings_from_environment, tile_step_of
from factorizer_nnunet.nnunet.model_folder import ModelFolder


@dataclass(frozen=True)
class TrainedModel:
    """Trained folds of one configuration.

    Attributes:
        folder: ``TRAINER__PLANS__CONFIGURATION``.
        folds: by name, in the order of ``-f``.
        network: with the weights of the first fold.
        inference_settings: what it was asked to compute other than its plans say.
        tile_step_size: of the sliding window, that the folder asks for.
    """

    folder: Path
    folds: dict[str, FoldCheckpoint]
    plans: PlansManager
    settings: ConfigurationManager
    description: dict[str, Any]
    network: nn.Module
    inference_settings: InferenceSettings
    tile_step_size: float

    @property
    def first(self) -> FoldCheckpoint:
        """What the folds have in common."""
        return next(iter(self.folds.values()))

    @property
    def num_channels(self) -> int:
        """Of an image, without those for a previous stage."""
        return len(self.description.get("channel_names", self.description.get("modality", {})))

    @property
    def file_ending(self) -> str:
        return self.description["file_ending"]

    def predictor(
        self, device: torch.device, *, tile_step_size: float, use_mirroring: bool, on_device: bool
    ) -> nnUNetPredictor:
        """nnU-Net's predictor for this model.

        Args:
            device: where the network computes.
            tile_step_size: step of the sliding window, as a fraction of the patch.
            use_mirroring: average over mirrored images where the training mirrored.
            on_device: keep the whole result on the device, too; with CUDA only.
        """
        predictor = nnUNetPredictor(
            tile_step_size=tile_step_size,
            use_mirroring=use_mirroring,
            perform_everything_on_device=on_device,
            device=device,
            allow_tqdm=False,
        )
        predictor.manual_initialization(
            self.network,
            self.plans,
            self.settings,
            [fold.weights for fold in self.folds.values()],
            self.description,
            self.first.trainer_name,
            self.first.mirroring_axes,
        )
        return predictor


def load_model(
    folder: Path,
    folds: Sequence[str],
    checkpoint_name: str,
    trusted: bool = False,
    inference_settings: InferenceSettings = InferenceSettings(),  # noqa: B008 - immutable
) -> TrainedModel:
    """Read the folds and build their network.

    Args:
        folder: ``TRAINER__PLANS__CONFIGURATION``, with ``plans.json`` and ``dataset.json``.
        folds: numbers, or ``all``.
        checkpoint_name: such as ``checkpoint_final.pth``.
        trusted: whether code in the checkpoints may be run.
        inference_settings: of the network; what they leave open, the environment says, but only to a Factorizer.

    Raises:
        UserError: the folder is no model's, lacks folds, its files do not belong together, or the settings do not fit.
    """
    mend = "Name a model folder, TRAINER__PLANS__CONFIGURATION in nnUNet_results, in which a training has started"
    if not folder.is_dir():
        raise UserError(f"there is no model in {folder}. {mend}{_models_beside(folder)}")
    files = {fold: folder / f"fold_{fold}" / checkpoint_name for fold in folds}
    _check_files(folder, files, checkpoint_name)
    description = _described(folder / "dataset.json", ("labels", "file_ending"), mend)
    plans = PlansManager(_described(folder / "plans.json", ("plans_name", "configurations"), mend))
    loaded = {fold: read_fold(file, trusted) for fold, file in files.items()}
    first = next(iter(loaded.values()))
    for fold, checkpoint in loaded.items():
        if (checkpoint.trainer_name, checkpoint.configuration) != (first.trainer_name, first.configuration):
            raise UserError(
                f"{files[fold]} was trained as {checkpoint.trainer_name}, {checkpoint.configuration}, "
                f"{next(iter(files.values()))} as {first.trainer_name}, {first.configuration}: name folds of one model"
            )
    if first.configuration not in plans.available_configurations:
        raise UserError(f"{folder / 'plans.json'} has no configuration {first.configuration}, which the folds have")
    settings = plans.get_configuration(first.configuration)
    network = _build(first.trainer_name, plans, settings, description)
    inference_settings = (
        inference_settings.or_else(settings_from_environment())
        if isinstance(network, Factorizer)
        else inference_settings
    )
    inference_settings.apply(network, str(folder))
    for fold, checkpoint in loaded.items():
        try:
            network.load_state_dict(checkpoint.weights)
        except RuntimeError as error:
            raise UserError(
                f"{files[fold]} does not fit the network of {folder / 'plans.json'}: {error}. Restore the plans that "
                "the fold was trained with"
            ) from error
    network.load_state_dict(first.weights)
    return TrainedModel(
        folder, loaded, plans, settings, description, network, inference_settings, tile_step_of(ModelFolder(folder))
    )


def _described(path: Path, needed: Sequence[str], mend: str) -> dict[str, Any]:
    content = load_json_object(path, mend)
    if missing := [key for key in needed if key not in content]:
        raise UserError(f"{path} lacks {', '.join(missing)}: restore it as the training left it")
    return content


def _check_files(folder: Path, files: dict[str, Path], checkpoint_name: str) -> None:
    missing = [fold for fold, file in files.items() if not file.is_file()]
    if missing:
        there = sorted(file.parent.name.removeprefix("fold_") for file in folder.glob(f"fold_*/{checkpoint_name}"))
        others = sorted({file.name for file in folder.glob("fold_*/*.pth")})
        advice = f"name one that is there with -chk ({', '.join(others)})" if others else "train them"
        if there:
            advice = f"name those with -f {' '.join(there)}, or train the others"
        raise UserError(f"{folder} has no {checkpoint_name} of fold {', '.join(missing)}: {advice}")


def _models_beside(folder: Path) -> str:
    models = sorted(path.name for path in folder.parent.glob("*__*__*")) if folder.parent.is_dir() else []
    return f". {folder.parent.name} has {', '.join(models)}" if models else ""


def _build(
    trainer_name: str, plans: PlansManager, settings: ConfigurationManager, description: dict[str, Any]
) -> nn.Module:
    try:
        trainer = recursive_find_trainer_class_by_name(trainer_name)
    except RuntimeError as error:
        raise UserError(
            f"the trainer {trainer_name} is not known here: add the folder that holds it to nnUNet_extTrainer"
        ) from error
    build = trainer.build_network_architecture
    channels = determine_num_input_channels(plans, settings, description)
    outputs = plans.get_label_manager(description).num_segmentation_heads
    if "plans_manager" in inspect.signature(build).parameters:
        return build(plans, settings, channels, outputs, enable_deep_supervision=False)
    # The form of trainers written for nnU-Net before 2.8.
    return build(
        settings.network_arch_class_name,
        settings.network_arch_init_kwargs,
        settings.network_arch_init_kwargs_req_import,
        channels,
        outputs,
        enable_deep_supervision=False,
    )
