"""A trained model: its folds, its network, and nnU-Net's predictor for it. The only place that builds them."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.checkpoint import FoldCheckpoint, read_fold
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.exported_model import RECORD_FILE, ExportRecord, check_checkpoint_name, opened_model
from factorizer_nnunet.nnunet.inference_settings import InferenceSettings, settings_from_environment, tile_step_of
from factorizer_nnunet.nnunet.model_folder import ALL_CASES, ModelFolder
from factorizer_nnunet.nnunet.trusted_classes import trainer_class
from factorizer_nnunet.nnunet.weights_file import WEIGHTS_FILE
from factorizer_nnunet.postprocessing.rule_file import read_postprocessing
from factorizer_nnunet.postprocessing.rules import Postprocessing
from factorizer_nnunet.prediction.description import ModelDescription, read_description
from factorizer_nnunet.prediction.trained_with import check_trained_with


@dataclass(frozen=True)
class TrainedModel:
    """Trained folds of one configuration.

    Attributes:
        folder: ``TRAINER__PLANS__CONFIGURATION``, or an exported model, folder or zip.
        folds: checkpoints by fold, in the order of ``-f``.
        description: plans, configuration and data set.
        network: with the weights of the first fold.
        inference_settings: how it predicts, where this differs from the plans.
        tile_step_size: step of the sliding window for this folder.
        is_exported: whether it comes from ``factorizer-nnunet export``.
        exported_rules: those of an exported model, of which a zip is closed by now.
    """

    folder: Path
    folds: dict[str, FoldCheckpoint]
    description: ModelDescription
    network: nn.Module
    inference_settings: InferenceSettings
    tile_step_size: float
    is_exported: bool = False
    exported_rules: Postprocessing | None = None

    @property
    def first(self) -> FoldCheckpoint:
        """The first fold, for what all folds have in common."""
        return next(iter(self.folds.values()))

    @property
    def plans(self) -> PlansManager:
        return self.description.plans

    @property
    def configuration(self) -> ConfigurationManager:
        return self.description.configuration

    @property
    def dataset(self) -> DatasetJson:
        return self.description.dataset

    @property
    def num_channels(self) -> int:
        """Channels of an image, without those for a previous stage."""
        return len(self.dataset.channel_names)

    @property
    def file_ending(self) -> str:
        return self.dataset.file_ending

    def predictor(
        self,
        device: torch.device,
        *,
        tile_step_size: float,
        use_mirroring: bool,
        on_device: bool,
        predictor_class: type[nnUNetPredictor] = nnUNetPredictor,
    ) -> nnUNetPredictor:
        """Build nnU-Net's predictor for this model.

        Args:
            device: where the network computes.
            tile_step_size: step of the sliding window, as a fraction of the patch.
            use_mirroring: average over mirrored images if the training mirrored.
            on_device: keep the complete result on the device, too; with CUDA only.
            predictor_class: ``nnUNetPredictor`` or a subclass.
        """
        with contextlib.redirect_stdout(io.StringIO()):  # without a GPU, it prints that results cannot stay on one
            predictor = predictor_class(
                tile_step_size=tile_step_size,
                use_mirroring=use_mirroring,
                perform_everything_on_device=on_device,
                device=device,
                verbose=False,
                allow_tqdm=False,
            )
        predictor.manual_initialization(
            self.network,
            self.plans,
            self.configuration,
            [dict(fold.weights) for fold in self.folds.values()],
            self.dataset.content,
            self.first.trainer_name,
            self.first.mirroring_axes,
        )
        return predictor


def load_model(
    folder: Path,
    folds: Sequence[str] | None,
    checkpoint_name: str,
    trusted: bool = False,
    inference_settings: InferenceSettings = InferenceSettings(),  # noqa: B008 - immutable
) -> TrainedModel:
    """Read the folds and build their network.

    Args:
        folder: ``TRAINER__PLANS__CONFIGURATION``, with ``plans.json`` and ``dataset.json``; or an exported model, of
            which every file is checked first.
        folds: numbers, or ``all``; None: every number that has the checkpoint, else ``all``.
        checkpoint_name: such as ``checkpoint_final.pth``.
        trusted: whether code in the checkpoints may be executed.
        inference_settings: for a Factorizer, the environment fills in what these leave open.

    Raises:
        UserError: it is not a model folder, lacks folds, its files do not belong together, or the settings do not fit.
    """
    with opened_model(folder) as opened:
        if opened.record is not None:
            check_checkpoint_name(opened.record, checkpoint_name, folder)
            checkpoint_name = WEIGHTS_FILE
        model = _load(ModelFolder(opened.folder), folds, checkpoint_name, trusted, inference_settings)
        rules = None if opened.record is None else _rules(model)
    if opened.record is None:
        return model
    _check_channels(opened.record, model.dataset, folder)
    return replace(model, folder=folder, is_exported=True, exported_rules=rules)


def _load(
    model_folder: ModelFolder,
    folds: Sequence[str] | None,
    checkpoint_name: str,
    trusted: bool,
    inference_settings: InferenceSettings,
) -> TrainedModel:
    files = _find_checkpoints(model_folder, folds, checkpoint_name)
    loaded = {fold: read_fold(file, trusted) for fold, file in files.items()}
    (first_fold, first), *_ = loaded.items()
    for fold, checkpoint in loaded.items():
        if (checkpoint.trainer_name, checkpoint.configuration) != (first.trainer_name, first.configuration):
            raise UserError(
                f"{files[fold]} was trained as {checkpoint.trainer_name}, {checkpoint.configuration}, "
                f"{files[first_fold]} as {first.trainer_name}, {first.configuration}: name folds of one model"
            )
    description = replace(
        read_description(model_folder, first.configuration, trusted),
        takes_absent=all(checkpoint.channel_drop for checkpoint in loaded.values()),
    )
    build = _builder(first.trainer_name, description, files[first_fold])
    for fold, checkpoint in loaded.items():
        _check_fit(build, checkpoint, files[fold], model_folder, description)
        check_trained_with(checkpoint, files[fold], model_folder, description)
    network = build()
    if isinstance(network, Factorizer):
        inference_settings = inference_settings.or_else(settings_from_environment())
    inference_settings.apply(network, str(model_folder.path))
    for fold, checkpoint in reversed(loaded.items()):  # the first fold's weights stay
        network.load_state_dict(checkpoint.weights)
        _check_finite(network, files[fold])
    step = tile_step_of(model_folder)
    return TrainedModel(model_folder.path, loaded, description, network, inference_settings, step)


def with_postprocessing(model: TrainedModel) -> TrainedModel:
    """The model with the rules in its folder, by which its segmentations are then postprocessed.

    Raises:
        UserError: they belong to other labels or checkpoints.
    """
    rules = model.exported_rules if model.is_exported else _rules(model)
    return replace(model, description=replace(model.description, postprocessing=rules))


def _rules(model: TrainedModel) -> Postprocessing | None:
    checkpoints = {fold: checkpoint.digest for fold, checkpoint in model.folds.items()}
    return read_postprocessing(ModelFolder(model.folder), model.dataset, checkpoints)


def _check_channels(record: ExportRecord, dataset: DatasetJson, folder: Path) -> None:
    """Check that the two files that name the channels agree.

    Raises:
        UserError: they do not.
    """
    if record.channels != dataset.channel_names:
        raise UserError(
            f"{folder}: {RECORD_FILE} names the channels {', '.join(record.channels)}, dataset.json "
            f"{', '.join(dataset.channel_names)}. The files do not belong together: get the model again"
        )


def _find_checkpoints(model: ModelFolder, folds: Sequence[str] | None, name: str) -> Mapping[str, Path]:
    if not model.path.is_dir():
        others = sorted(path.name for path in model.path.parent.glob("*__*__*"))
        listed = f"; {model.path.parent.name} has {', '.join(others)}" if others else ""
        raise UserError(
            f"there is no model in {model.path}. Name a model that factorizer-nnunet export wrote, or a model folder, "
            f"TRAINER__PLANS__CONFIGURATION in nnUNet_results{listed}"
        )
    if folds is None:
        existing = [fold.name for fold in model.folds(name)]
        folds = [fold for fold in existing if fold != ALL_CASES] or existing
        if not folds:
            raise UserError(f"{model.path} has no fold with {name}: name a model folder, or another checkpoint")
    files = {fold: model.fold(fold).checkpoint(name) for fold in folds}
    if missing := [fold for fold, file in files.items() if not file.is_file()]:
        existing = [fold.name for fold in model.folds(name)]
        others = sorted({file.name for fold in model.folds() for file in fold.path.glob("*.pth")})
        advice = f"name an existing one with -chk ({', '.join(others)})" if others else "train them first"
        if existing:
            advice = f"name those with -f {' '.join(existing)}, or train the others"
        if ModelFolder(model.path.parent).plans_file.is_file():
            advice = f"it lies in the model folder {model.path.parent}: name that"
        raise UserError(f"{model.path} has no {name} of fold {', '.join(missing)}: {advice}")
    return files


def network_of(
    trainer_name: str, plans: PlansManager, settings: ConfigurationManager, channels: int, outputs: int, where: str
) -> nn.Module:
    """Build the network of a trainer on torch's default device.

    Args:
        trainer_name: a trainer that nnU-Net finds.
        plans, settings: the plans and one of their configurations.
        channels, outputs: of the network.
        where: what names the trainer and the plans, for messages.

    Raises:
        UserError: the trainer is not known, or the plans build no network.
    """
    build = trainer_class(trainer_name, where).build_network_architecture
    try:
        if "plans_manager" in inspect.signature(build).parameters:
            return build(plans, settings, channels, outputs, enable_deep_supervision=False)
        # Trainers written for nnU-Net before 2.8 take other arguments.
        return build(
            settings.network_arch_class_name,
            settings.network_arch_init_kwargs,
            settings.network_arch_init_kwargs_req_import,
            channels,
            outputs,
            enable_deep_supervision=False,
        )
    except UserError:
        raise
    except Exception as error:  # arguments of any kind reach the layers of torch
        raise UserError(
            f"the plans of {where} build no network ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}). Restore plans.json as the training left it"
        ) from error


def without_memory(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network, from ``network_of``, to look at the shapes of its weights alone."""
    try:
        with torch.device("meta"):
            return build()
    except UserError as error:
        if "meta tensor" not in str(error.__cause__):
            raise
        return build()  # the trainer looks at values while it builds, which needs memory


def _builder(trainer_name: str, description: ModelDescription, checkpoint: Path) -> Callable[[], nn.Module]:
    """A function that builds the network as the trainer does; raises as ``network_of``, an unknown trainer here."""
    trainer_class(trainer_name, str(checkpoint))
    channels, outputs = description.num_input_channels, description.labels.num_segmentation_heads
    where = str(checkpoint.parent.parent)
    return partial(network_of, trainer_name, description.plans, description.configuration, channels, outputs, where)


def _check_fit(
    build: Callable[[], nn.Module],
    checkpoint: FoldCheckpoint,
    file: Path,
    folder: ModelFolder,
    description: ModelDescription,
) -> None:
    """Compare weights and network without memory for the network, which plans may describe in any size.

    Raises:
        UserError: they do not fit.
    """
    network = without_memory(build)
    expected = network.state_dict()
    for name in expected.keys() & checkpoint.weights.keys():
        stored = checkpoint.weights[name].dtype
        if expected[name].is_floating_point() and not stored.is_floating_point:
            raise UserError(
                f"{file}: weight {name} contains {stored} values where the network has {expected[name].dtype}"
            )
    if differences := _differences(checkpoint.weights, expected):
        raise UserError(
            f"{file} does not fit the network in {folder.plans_file} with {description.num_input_channels} input "
            f"channels and {description.labels.num_segmentation_heads} outputs, as {folder.dataset_file} says: "
            f"{'; '.join(differences)}. Restore both files as the training left them"
        )


def _differences(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """In which weights a checkpoint differs from a network."""
    common = expected.keys() & stored.keys()
    differing = {
        "missing": expected.keys() - stored.keys(),
        "unknown": stored.keys() - expected.keys(),
        "of another shape": {name for name in common if expected[name].shape != stored[name].shape},
    }
    return [
        f"{count_of(len(names), 'weight')} {what} ({first_few(sorted(names))})"
        for what, names in differing.items()
        if names
    ]


def _check_finite(network: nn.Module, file: Path) -> None:
    """NaN or infinity in a weight, also from a number too large for the network's precision.

    Raises:
        UserError: there is one; every prediction would be empty or arbitrary.
    """
    for name, weight in network.state_dict().items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise UserError(
                f"{file}: weight {name} contains NaN or infinity, so nothing can be predicted with it. Choose another "
                "checkpoint with -chk, or train the fold again"
            )
