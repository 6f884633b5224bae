"""``nnUNetTrainerFactorizer``: nnU-Net's trainer with our network and training recipe."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from factorizer_nnunet.core.dependency_warnings import ignore_dependency_warnings
from factorizer_nnunet.core.errors import print_user_errors_without_traceback
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.environment import StepSetting, nnunet_folder, step_setting
from factorizer_nnunet.nnunet.inference_settings import settings_from_environment
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE, ModelFolder
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import TRAINER
from factorizer_nnunet.training.budget import budget_from_suffix
from factorizer_nnunet.training.building import build_network, plans_with_translation, translated_unet
from factorizer_nnunet.training.channel_drop import ChannelDropTrainer, check_channels
from factorizer_nnunet.training.checks import check_checkpoint, check_pretrained_weights, check_training_inputs
from factorizer_nnunet.training.freezing import freeze
from factorizer_nnunet.training.new_files import NewFiles
from factorizer_nnunet.training.orientations import add_orientations
from factorizer_nnunet.training.ranks import on_first_rank
from factorizer_nnunet.training.schedule import Length, WarmupPolySchedule
from factorizer_nnunet.training.variables import check_variables

# With fewer stages there is only one decoder output, and nnU-Net's deep supervision gives the last one no weight.
_MIN_STAGES_FOR_DEEP_SUPERVISION = 3
# Of 1e-3, 3e-3 and 6e-3, 3e-3 was ahead after 400 iterations on the hippocampus data (fold 0, pseudo Dice .71, .76,
# .69).
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2  # AdamW's usual value; others were not compared
MAX_GRADIENT_NORM = 1.0  # as in the experiments for this recipe; others were not compared


class nnUNetTrainerFactorizer(ChannelDropTrainer):
    """Trains a Factorizer on our plans or on any stock plans, whose U-Net is translated.

    Recipe: AdamW with linear warm-up and polynomial decay, gradients clipped to norm 1; loss, deep supervision,
    augmentation and sampling are nnU-Net's. Subclasses made by ``trainer_variant`` change the length of training and
    the learning rate, freeze parts of the network, or leave out channels.

    Raises:
        UserError: plans, data set and configuration do not fit together, an environment variable has a wrong value or
            is for predictions only, or ``-pretrained_weights`` ask for code; before anything is written.
    """

    save_every: int  # epochs

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        print_user_errors_without_traceback()  # in nnUNetv2_train
        ignore_dependency_warnings()  # in its workers
        check_variables(device.type)
        self.step_setting = step_setting()
        check_pretrained_weights(sys.argv[1:])
        on_first_rank(lambda: check_training_inputs(plans, configuration, fold, dataset_json, type(self).__name__))
        on_first_rank(lambda: check_channels(dataset_json, self.budget.channel_drop, type(self).__name__))
        model = ModelName(type(self).__name__, plans["plans_name"], configuration)
        results = nnunet_folder("nnUNet_results", writable=True) / plans["dataset_name"]
        folder = ModelFolder(results / model.folder)
        self._new_files = NewFiles(folder.fold(fold).path)
        self._translated_unet = None
        if type(self).build_network_architecture is nnUNetTrainerFactorizer.build_network_architecture:
            self._translated_unet = translated_unet(PlansManager(plans).get_configuration(configuration))
            plans = plans_with_translation(plans, configuration, folder)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = self.budget.learning_rate or LEARNING_RATE
        self.weight_decay = WEIGHT_DECAY
        self.max_gradient_norm = MAX_GRADIENT_NORM
        self.num_epochs = self.budget.epochs or self.num_epochs
        self.num_iterations_per_epoch = self.budget.iterations_per_epoch or self.num_iterations_per_epoch
        self.num_val_iterations_per_epoch = self.budget.validation_iterations or self.num_val_iterations_per_epoch
        self.change_length()
        strides = self.configuration_manager.pool_op_kernel_sizes
        self.enable_deep_supervision = len(strides) >= _MIN_STAGES_FOR_DEEP_SUPERVISION

    def initialize(self) -> None:
        """Initialize as nnU-Net does, on the CPU with OMP_NUM_THREADS threads if that is set."""
        # nnUNetv2_train takes all cores whatever the variable says; folds trained at the same time would then mostly
        # wait for each other's threads.
        if self.device.type == "cpu" and os.environ.get("OMP_NUM_THREADS", "").isdecimal():
            torch.set_num_threads(max(1, int(os.environ["OMP_NUM_THREADS"])))
        super().initialize()
        if self._translated_unet:
            self.print_to_log_file(
                f"This trains a Factorizer, translated from the {self._translated_unet} of the plans"
            )

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Load as usual; a training that is refused leaves no log."""
        with self._new_files.removed_if_refused():
            super().load_checkpoint(filename_or_checkpoint)

    def on_train_start(self) -> None:
        """Start as usual; a training that is refused leaves no log."""
        with self._new_files.removed_if_refused():
            super().on_train_start()
        if self.local_rank == 0:
            try:
                folder = Path(self.preprocessed_dataset_folder)
                add_orientations(Path(self.output_folder_base) / FINGERPRINT_FILE, folder)
            except Exception as error:  # no training should end for want of a later warning
                self.print_to_log_file(f"Orientations of the training images are not recorded: {error!r}")

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The Factorizer of our plans, or the translation of a stock U-Net; nnU-Net's predictor calls this, too.

        For predictions, environment variables may set iterations and shifts, see ``nnunet.inference_settings``.

        Raises:
            UserError: a variable is not a number, or one that the network does not have.
        """
        network = build_network(configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision)
        inference_settings = settings_from_environment()
        inference_settings.apply(network, f"the network of {plans_manager.plans_name}")
        if inference_settings.are_set and isinstance(network, Factorizer):  # ``apply`` has refused other networks
            used = network.config
            print(f"NMF iterations: {used.num_iters}, shifts: {used.num_used_shifts}, as the environment asks")
        return network

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, WarmupPolySchedule]:
        """AdamW and its schedule; gradients are clipped before each optimizer step. Frozen weights are left out."""
        # Here, since nnU-Net has built the network, but not yet said to other processes which weights get gradients.
        if frozen := freeze(self.network, self.budget.freeze):
            self.print_to_log_file(f"Frozen: {', '.join(self.budget.freeze)}, {frozen:,} weights")
        plain = self.step_setting is StepSetting.PLAIN
        optimizer = build_optimizer(self.network, self.initial_lr, self.weight_decay, fused=not plain)
        if plain:
            optimizer.register_step_pre_hook(self._clip_gradients)
        return optimizer, WarmupPolySchedule(optimizer, self.initial_lr, self._length)

    @property
    def _length(self) -> Length:
        """Epochs, iterations and warm-up."""
        plan, iterations = self._time_plan, self.num_iterations_per_epoch
        first_epoch, first_iteration = (0, 0) if plan is None else (plan.first_epoch, plan.first_iteration)
        length = Length(self.num_epochs, iterations, 0, first_epoch, first_iteration)
        return replace(length, warmup=self.budget.warmup or min(1000, length.total // 20))

    def change_length(self) -> None:
        """Let schedule and checkpoints follow the number of epochs."""
        # A short training, too, must leave a checkpoint to continue from.
        self.save_every = max(1, min(self.save_every, self.num_epochs // 10))
        if self.lr_scheduler is not None:
            self.lr_scheduler.length = self._length

    def _clip_gradients(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        # nnU-Net's training step clips to 12, meant for SGD; a hook lowers that without copying the step.
        torch.nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], self.max_gradient_norm
        )

    def train_step(self, batch: dict) -> dict:
        """Run a step with its learning rate."""
        self.lr_scheduler.begin_iteration()
        return super().train_step(batch)

    def skip_steps(self, steps: int) -> None:
        """Skip them in the schedule, which counts steps."""
        self.lr_scheduler.skip(steps)

    def accept_checkpoint(self, checkpoint: dict[str, Any], path: str) -> None:
        """Check that the checkpoint belongs to these plans.

        Raises:
            UserError: it was trained with another network, patch or data set.
        """
        check_checkpoint(checkpoint, self.plans_manager.plans, self.configuration_name, path)


def build_optimizer(
    network: nn.Module,
    learning_rate: float = LEARNING_RATE,
    weight_decay: float = WEIGHT_DECAY,
    fused: bool = False,
) -> torch.optim.AdamW:
    """AdamW for a network's parameters that are not frozen, with weight decay for matrices and kernels only.

    ``fused`` updates all parameters in one launch; it stays as it is when a state is loaded.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]  # biases and norms have no reason to be near 0
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        fused=fused or None,
    )

    def keep_fused(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        # The saved groups would replace it, also in a training that is continued with another setting.
        return {**state, "param_groups": [{**group, "fused": fused or None} for group in state["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(keep_fused)
    return optimizer


@functools.cache
def trainer_variant(name: str) -> type[nnUNetTrainerFactorizer]:
    """The trainer with the budget in its name, see ``training.budget``.

    Raises:
        ValueError: the name does not have that form.
    """
    budget = budget_from_suffix(name.removeprefix(TRAINER))
    return type(name, (nnUNetTrainerFactorizer,), {"budget": budget, "__module__": __name__})
