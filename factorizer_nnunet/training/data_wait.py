"""How long a training waits for its data, so that its log says whether more workers, or the device, would help."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_STEPS = 20  # not measured: the network is compiled, and the workers start
MEASURED_STEPS = 50


@dataclass(frozen=True)
class Measured:
    """Mean seconds a step: in it, and before it without a batch."""

    step: float
    waiting: float

    @property
    def total(self) -> float:
        """From one step to the next."""
        return self.step + self.waiting

    @property
    def share(self) -> float:
        """Of the time, that passes waiting."""
        return self.waiting / self.total


class DataWait:
    """A stopwatch for the steps of a training.

    Args:
        prepared: batches that may have been made beforehand; nothing waits for them.
        clock: gives seconds.
    """

    def __init__(self, prepared: int = 0, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._first = max(FIRST_STEPS, prepared)
        self._seen = self._measured = 0
        self._step = self._waiting = 0.0
        self._began: float | None = None
        self._ended: float | None = None

    def epoch_begins(self) -> None:
        """What has passed since the last step was no wait for a training batch."""
        self._ended = None

    def step_begins(self) -> None:
        """A batch has come."""
        self._began = self._clock()

    def step_ends(self) -> Measured | None:
        """The result after the last step that is measured, once."""
        assert self._began is not None  # step_begins was called
        now, began, ended = self._clock(), self._began, self._ended
        self._ended = now
        self._seen += 1
        if self._seen <= self._first or self._measured == MEASURED_STEPS or ended is None:
            return None
        self._step += now - began
        self._waiting += began - ended
        self._measured += 1
        if self._measured < MEASURED_STEPS:
            return None
        return Measured(self._step / MEASURED_STEPS, self._waiting / MEASURED_STEPS)
