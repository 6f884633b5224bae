"""The learning rate: linear warm-up, then nnU-Net's polynomial decay, both per iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_EXPONENT = 0.9  # of the decay, as in nnU-Net


@dataclass(frozen=True)
class Length:
    """How long a training is.

    Attributes:
        epochs: in all.
        iterations_per_epoch: from ``first_epoch`` on.
        warmup: iterations over which the rate rises from 0 to its peak.
        first_epoch, first_iteration: where epochs of this length begin; those before may have had other lengths.
    """

    epochs: int
    iterations_per_epoch: int
    warmup: int
    first_epoch: int = 0
    first_iteration: int = 0

    @property
    def total(self) -> int:
        """Iterations of all epochs."""
        return self.begin_of(self.epochs)

    def begin_of(self, epoch: int) -> int:
        """Iterations before an epoch."""
        return self.first_iteration + (epoch - self.first_epoch) * self.iterations_per_epoch


class WarmupPolySchedule:
    """Sets the learning rate before every training step, and at the start of each epoch for nnU-Net's loop.

    The position follows from the epoch and its completed iterations, so a resumed training continues exactly where it
    stopped, with no state in the checkpoint. Iterations count, not steps of the optimizer: whether those that mixed
    precision skips are seen by a hook depends on the optimizer.

    Args:
        optimizer: whose parameter groups get the rate.
        peak: the highest learning rate.
        length: of the training. If it is set again, it is used from the next ``step``.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, peak: float, length: Length) -> None:
        self.optimizer = optimizer
        self.peak = peak
        self.length = length
        self.step(0)

    def rate(self, iteration: int) -> float:
        """Learning rate of one iteration, counted from 0 over the complete training."""
        rising = min(1.0, (iteration + 1) / max(1, self.length.warmup))
        left = max(0.0, 1 - iteration / self.length.total)
        return self.peak * rising * left**_EXPONENT

    def step(self, epoch: int) -> None:
        """Go to the first iteration of ``epoch``; nnU-Net calls this at the start of each."""
        self.iteration = self.length.begin_of(epoch)
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
