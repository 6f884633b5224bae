"""Trainers for ``benchmarks.real_data``: nnU-Net's recipe and ours, for the network that the plans name.

A name says the length and the seed, such as ``nnUNetTrainerBenchmarkStock_15epochs_10iters_seed1``. Both save and
resume as our trainer does, so that a training can be killed at any time, and both validate without mirroring, which
takes eight times as long and says nothing about training.
"""

from __future__ import annotations

import functools
import json
import os
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.training.budget import Budget, budget_from_suffix
from factorizer_nnunet.training.resumable import ResumableTrainer
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

CLOCK_FILE = "benchmark_clock.json"  # in a fold's folder, at the end of its training
_CLOCK_KEY = "benchmark_epoch_seconds"  # of a checkpoint


class MeasuredTrainer(ResumableTrainer):
    """Measures what the training steps cost, with loading and augmentation.

    On the CPU, the clock is the CPU time of this process, which with ``nnUNet_n_proc_DA=0`` also loads and augments:
    other programs on the machine change it less than the time of day, by up to a third. On a GPU it is the time of day.
    Work that a kill has lost is not counted.
    """

    budget = Budget()
    seed = 0
    _epoch_seconds: Sequence[float] = ()  # of complete epochs, and of the current one up to now
    _started: float | None = None  # when the steps of the current epoch were last counted

    def initialize(self) -> None:
        """Initialize with the seed, on OMP_NUM_THREADS threads: nnU-Net takes all cores."""
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)
        super().initialize()

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        super().on_train_epoch_start()
        begun = self.current_epoch + 1
        self._epoch_seconds = [*self._epoch_seconds, *[0.0] * begun][:begun]
        self._started = self._now()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Stop the clock."""
        self._count()
        self._started = None
        super().on_train_epoch_end(train_outputs)

    def own_entries(self) -> dict[str, Any]:
        """Add the time to checkpoints."""
        self._count()
        return {**super().own_entries(), _CLOCK_KEY: list(self._epoch_seconds)}

    def accept_checkpoint(self, checkpoint: dict[str, Any], path: str) -> None:
        """Continue the clock."""
        super().accept_checkpoint(checkpoint, path)
        self._epoch_seconds = list(checkpoint.get(_CLOCK_KEY, ()))

    def on_train_end(self) -> None:
        """Write the times."""
        super().on_train_end()
        content = {
            "epoch_seconds": self._epoch_seconds,
            "iterations": self.num_epochs * self.num_iterations_per_epoch,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
        }
        write_text_atomically(Path(self.output_folder) / CLOCK_FILE, json.dumps(content))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate without mirroring."""
        self.inference_allowed_mirroring_axes = None
        super().perform_actual_validation(save_probabilities)

    def _count(self) -> None:
        if self._started is not None:
            now = self._now()
            *before, current = self._epoch_seconds
            self._epoch_seconds = [*before, current + now - self._started]
            self._started = now

    def _now(self) -> float:
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()


class nnUNetTrainerBenchmarkStock(MeasuredTrainer):
    """nnU-Net's recipe: SGD with momentum from 1e-2, polynomial decay to 0 over the length in the name."""

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


class nnUNetTrainerBenchmarkRecipe(MeasuredTrainer, nnUNetTrainerFactorizer):
    """Our recipe for the network that the plans name, a U-Net among them."""

    build_network_architecture = staticmethod(nnUNetTrainer.build_network_architecture)


def variant(name: str, *bases: type[MeasuredTrainer]) -> type[MeasuredTrainer]:
    """The trainer of one of some bases with the length and seed that a name says.

    Raises:
        AttributeError: the name is of none of them.
    """
    for base in bases:
        if name.startswith(base.__name__ + "_"):
            return _variant(name, base)
    raise AttributeError(name)


@functools.cache
def _variant(name: str, base: type[MeasuredTrainer]) -> type[MeasuredTrainer]:
    suffix, seed = re.fullmatch(r"(.*?)(?:_seed(\d+))?", name.removeprefix(base.__name__)).groups()
    return type(name, (base,), {"budget": budget_from_suffix(suffix), "seed": int(seed or 0), "__module__": __name__})


def __getattr__(name: str) -> type[MeasuredTrainer]:
    return variant(name, nnUNetTrainerBenchmarkStock, nnUNetTrainerBenchmarkRecipe)
