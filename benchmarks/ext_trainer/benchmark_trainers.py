"""Trainers for ``benchmarks.accuracy``: nnU-Net's own and ours with their length in their name, without mirroring.

Mirroring takes eight times as long in the final validation of either network and says nothing about training.
"""

from __future__ import annotations

import functools
import os

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from factorizer_nnunet.training.budget import Budget, budget_from_suffix
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

STOCK = "nnUNetTrainerBenchmarkStock"
FACTORIZER = "nnUNetTrainerBenchmarkFactorizer"


class nnUNetTrainerBenchmarkStock(nnUNetTrainer):
    """nnU-Net's trainer as it is, for the number of epochs and iterations of ``budget``."""

    budget = Budget()

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.budget.epochs or self.num_epochs
        self.num_iterations_per_epoch = self.budget.iterations_per_epoch or self.num_iterations_per_epoch
        self.num_val_iterations_per_epoch = self.budget.validation_iterations or self.num_val_iterations_per_epoch
        self.save_every = 5

    def initialize(self) -> None:
        # As our trainer does: nnU-Net takes all cores, and trainings that run in parallel would wait for each other.
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        super().initialize()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        self.inference_allowed_mirroring_axes = None
        super().perform_actual_validation(save_probabilities)


class nnUNetTrainerBenchmarkFactorizer(nnUNetTrainerFactorizer):
    """Our trainer as it is."""

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        self.inference_allowed_mirroring_axes = None
        super().perform_actual_validation(save_probabilities)


@functools.cache
def _variant(name: str, base: type[nnUNetTrainer]) -> type[nnUNetTrainer]:
    budget = budget_from_suffix(name.removeprefix(base.__name__))
    return type(name, (base,), {"budget": budget, "__module__": __name__})


def __getattr__(name: str) -> type[nnUNetTrainer]:
    for base in (nnUNetTrainerBenchmarkStock, nnUNetTrainerBenchmarkFactorizer):
        if name.startswith(base.__name__ + "_"):
            return _variant(name, base)
    raise AttributeError(name)
