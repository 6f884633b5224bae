"""The learning rate: linear warm-up, then nnU-Net's polynomial decay, both per iteration."""

from __future__ import annotations

import torch

_EXPONENT = 0.9  # of the decay, as in nnU-Net


class WarmupPolySchedule:
    """Sets the learning rate before every training step, and at the start of each epoch for nnU-Net's loop.

    The position follows from the epoch and its completed iterations, so a resumed training continues exactly where it
    stopped, with no state in the checkpoint. Iterations count, not steps of the optimizer: whether those that mixed
    precision skips are seen by a hook depends on the optimizer.

    Args:
        optimizer: whose parameter groups get the rate.
        peak: the highest learning rate.
        epochs, iterations_per_epoch: length of the training.
        warmup: iterations over which the rate rises from 0 to its peak.
        first_epoch, first_iteration: where epochs of this length begin; those before may have had other lengths.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        peak: float,
        epochs: int,
        iterations_per_epoch: int,
        warmup: int,
        first_epoch: int = 0,
        first_iteration: int = 0,
    ) -> None:
        self.optimizer = optimizer
        self.peak = peak
        self.set_length(
            epochs=epochs,
            iterations_per_epoch=iterations_per_epoch,
            warmup=warmup,
            first_epoch=first_epoch,
            first_iteration=first_iteration,
        )
        self.step(0)

    def set_length(
        self,
        *,
        epochs: int,
        iterations_per_epoch: int,
        warmup: int,
        first_epoch: int = 0,
        first_iteration: int = 0,
    ) -> None:
        """Set the length of the training; arguments as for the class. It is used from the next ``step``."""
        self.iterations_per_epoch = iterations_per_epoch
        self.first_epoch, self.first_iteration = first_epoch, first_iteration
        self.total = first_iteration + (epochs - first_epoch) * iterations_per_epoch
        self.warmup = warmup

    def rate(self, iteration: int) -> float:
        """Learning rate of one iteration, counted from 0 over the complete training."""
        rising = min(1.0, (iteration + 1) / max(1, self.warmup))
        left = max(0.0, 1 - iteration / self.total)
        return self.peak * rising * left**_EXPONENT

    def step(self, epoch: int) -> None:
        """Go to the first iteration of ``epoch``; nnU-Net calls this at the start of each."""
        self.iteration = self.first_iteration + (epoch - self.first_epoch) * self.iterations_per_epoch
        self._set(self.rate(self.iteration))

    def skip(self, iterations: int) -> None:
        """Skip iterations of the epoch that were completed before a stop."""
        self.iteration += iterations

    def begin_iteration(self) -> None:
        """Set the rate of the next iteration."""
        self._set(self.rate(self.iteration))
        self.iteration += 1

    def _set(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
