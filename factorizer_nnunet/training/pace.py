"""How long the epochs of a training take, measured while it runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_RECENT = 5  # epochs: a short load counts little, and a lasting one soon


class Pace:
    """A stopwatch for epochs; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epochs: deque[tuple[int, float, float]] = deque(maxlen=_RECENT)  # steps, their seconds, other seconds
        self._steps, self._began, self._trained = 0, 0.0, 0.0

    def steps_begin(self) -> None:
        """The training steps of an epoch follow."""
        self._began = self._clock()

    def steps_end(self, steps: int) -> None:
        """So many training steps have been done, and the rest of the epoch follows."""
        self._steps, self._trained = steps, self._clock()

    def epoch_ends(self) -> None:
        """Note the epoch; one that continued after its last step says nothing about steps and is left out."""
        if self._steps:
            self._epochs.append((self._steps, self._trained - self._began, self._clock() - self._trained))

    def forget(self) -> None:
        """Training goes on at another pace; called between epochs."""
        self._epochs.clear()

    @property
    def is_known(self) -> bool:
        """Whether an epoch has been measured."""
        return bool(self._epochs)

    @property
    def step(self) -> float:
        """Mean seconds of a training step in recent epochs."""
        return sum(seconds for _, seconds, _ in self._epochs) / sum(steps for steps, *_ in self._epochs)

    @property
    def others(self) -> float:
        """Mean seconds of the rest of an epoch."""
        return sum(others for *_, others in self._epochs) / len(self._epochs)
