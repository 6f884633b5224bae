"""Plain progress lines, each with the time since the start: they read the same in a terminal, a pipe and a log."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LineWatcher = Callable[[str], str | None]  # a line of a command's output -> what to tell the user, if anything


class Reporter:
    """Prints lines such as `[03:12] step 5 of 8: …` and knows how long nothing has been said."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._step = 0
        self._start = time.monotonic()
        self._last = self._start

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def silence(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self._last

    def step(self, title: str) -> None:
        """Announce the next step."""
        self._step += 1
        self.say(f"step {self._step} of {self._steps}: {title}")

    def say(self, text: str) -> None:
        """Print one line with the elapsed time."""
        self._last = time.monotonic()
        minutes, seconds = divmod(int(self.elapsed), 60)
        print(f"[{minutes:02d}:{seconds:02d}] {text}", flush=True)

    def command(self, argv: Sequence[str], log: Path) -> None:
        """Show a command as the user would type it, and where its output goes."""
        shown = [Path(argv[0]).name, *argv[1:]]
        print(f"        $ {shlex.join(shown)}\n          > {log}", flush=True)


class EpochWatcher:
    """Reads the log of `nnUNetv2_train`: one message an epoch, with loss and Dice on validation patches."""

    def __init__(self, fold: int, epochs: int) -> None:
        self._fold = fold
        self._epochs = epochs
        self._epoch = 0
        self._loss = self._dice = "?"

    def __call__(self, line: str) -> str | None:
        if match := re.search(r"Epoch (\d+)\s*$", line):
            self._epoch = int(match[1]) + 1
        elif match := re.search(r"train_loss (\S+)", line):
            self._loss = f"{float(match[1]):.2f}"
        elif match := re.search(r"Pseudo dice \[(.*)\]", line):
            values = re.findall(r"(?:float\d+\()?(-?\d+\.\d+(?:e-?\d+)?|nan)", match[1])
            self._dice = " ".join(f"{float(value):.2f}" for value in values)
        elif match := re.search(r"Epoch time: (\S+) s", line):
            done = f"epoch {self._epoch} of {self._epochs}"
            return f"fold {self._fold}: {done}, loss {self._loss}, patch Dice {self._dice} ({float(match[1]):.0f} s)"
        elif "Training done" in line:
            return f"fold {self._fold}: trained, now segmenting its own validation patients"
        return None


class CaseCounter:
    """Counts the lines of a log that match a pattern, one a patient: `fold 2: predicting patient 3 of 5`."""

    def __init__(self, what: str, pattern: str, total: int) -> None:
        self._what = what
        self._pattern = re.compile(pattern)
        self._total = total
        self._count = 0

    def __call__(self, line: str) -> str | None:
        if self._pattern.search(line) is None:
            return None
        self._count += 1
        return f"{self._what} {self._count} of {self._total}"
