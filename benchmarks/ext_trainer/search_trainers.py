"""Trainers for ``benchmarks.default_search``: our recipe with one change each, named as those of the study are.

``nnUNetTrainerBenchmarkCosine_8epochs_50iters_seed1`` is ``nnUNetTrainerBenchmarkRecipe_8epochs_50iters_seed1`` with
another schedule.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from benchmarks.ext_trainer.benchmark_trainers import MeasuredTrainer, nnUNetTrainerBenchmarkRecipe, variant
from benchmarks.real_data.networks import with_conv_stem
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.training.schedule import WarmupPolySchedule

AVERAGED_STEPS = 20  # over which weights are averaged, the last ones counting most
_AVERAGE_KEY = "benchmark_average"  # of a checkpoint
_BETAS = (0.9, 0.95)


class CosineSchedule(WarmupPolySchedule):
    """Linear warm-up, then half a period of a cosine."""

    def rate(self, iteration: int) -> float:
        """Learning rate of one iteration."""
        warmup = self.length.warmup
        if iteration < warmup:
            return super().rate(iteration)
        done = (iteration - warmup) / max(1, self.length.total - warmup)
        return self.peak * (1 + math.cos(math.pi * min(1.0, done))) / 2


class nnUNetTrainerBenchmarkCosine(nnUNetTrainerBenchmarkRecipe):
    """Cosine decay instead of polynomial."""

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, CosineSchedule]:
        """AdamW and the schedule."""
        optimizer, schedule = super().configure_optimizers()
        return optimizer, CosineSchedule(optimizer, schedule.peak, schedule.length)


class nnUNetTrainerBenchmarkAveraged(nnUNetTrainerBenchmarkRecipe):
    """The final weights are an exponential moving average."""

    _average: dict[str, torch.Tensor] | None = None

    def train_step(self, batch: dict) -> dict:
        """Run a step and add its weights to the average."""
        result = super().train_step(batch)
        now = {name: value.detach() for name, value in self.network.named_parameters()}
        if self._average is None:
            self._average = {name: value.clone() for name, value in now.items()}
        torch._foreach_lerp_(list(self._average.values()), list(now.values()), 1 / AVERAGED_STEPS)
        return result

    def own_entries(self) -> dict[str, Any]:
        """Add the average to checkpoints."""
        return {**super().own_entries(), _AVERAGE_KEY: self._average}

    def accept_checkpoint(self, checkpoint: dict[str, Any], path: str) -> None:
        """Continue the average."""
        super().accept_checkpoint(checkpoint, path)
        self._average = checkpoint.get(_AVERAGE_KEY)

    def on_train_end(self) -> None:
        """Take the average as the final weights."""
        with torch.no_grad():
            for name, value in self.network.named_parameters():
                value.copy_((self._average or {}).get(name, value))
        super().on_train_end()


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for matrices, AdamW for all other weights, as one optimizer; both have the learning rate of AdamW."""

    def __init__(self, network: nn.Module, learning_rate: float, weight_decay: float) -> None:
        weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
        groups = [
            {"params": [weight for weight in weights if weight.ndim == 1], "weight_decay": 0.0},
            {"params": [weight for weight in weights if weight.ndim > 2], "weight_decay": weight_decay},
        ]
        matrices = [weight for weight in weights if weight.ndim == 2]
        self.parts = (
            torch.optim.Muon(matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(groups, lr=learning_rate),
        )
        # Both parts work on these very groups, so that a schedule of this optimizer sets their rates.
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update all weights."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the states of both."""
        for part, own in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(own)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


class nnUNetTrainerBenchmarkMuon(nnUNetTrainerBenchmarkRecipe):
    """Muon for matrices."""

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, WarmupPolySchedule]:
        """Muon with AdamW, and the schedule."""
        _, schedule = super().configure_optimizers()
        optimizer = MuonWithAdamW(self.network, self.initial_lr, self.weight_decay)
        optimizer.register_step_pre_hook(self._clip_gradients)
        return optimizer, WarmupPolySchedule(optimizer, schedule.peak, schedule.length)


class nnUNetTrainerBenchmarkFastMoments(nnUNetTrainerBenchmarkRecipe):
    """AdamW forgets squared gradients after 20 steps instead of 1,000."""

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, WarmupPolySchedule]:
        """AdamW and the schedule."""
        optimizer, schedule = super().configure_optimizers()
        for group in optimizer.param_groups:
            group["betas"] = _BETAS
        return optimizer, schedule


class nnUNetTrainerBenchmarkOneOutput(nnUNetTrainerBenchmarkRecipe):
    """The loss of the highest resolution alone."""

    def initialize(self) -> None:
        """Initialize without deep supervision."""
        self.enable_deep_supervision = False
        super().initialize()


def _build(
    change: Callable[[Factorizer], Factorizer],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    num_input_channels: int,
    num_output_channels: int,
    enable_deep_supervision: bool = True,
) -> nn.Module:
    """The network of the plans, changed; the other arguments are nnU-Net's."""
    return change(
        nnUNetTrainerBenchmarkRecipe.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
    )


class nnUNetTrainerBenchmarkConvStem(nnUNetTrainerBenchmarkRecipe):
    """A stem of two convolutions."""

    build_network_architecture = staticmethod(functools.partial(_build, with_conv_stem))


_BASES = (
    nnUNetTrainerBenchmarkCosine,
    nnUNetTrainerBenchmarkAveraged,
    nnUNetTrainerBenchmarkMuon,
    nnUNetTrainerBenchmarkFastMoments,
    nnUNetTrainerBenchmarkOneOutput,
    nnUNetTrainerBenchmarkConvStem,
)


def __getattr__(name: str) -> type[MeasuredTrainer]:
    return variant(name, *_BASES)
