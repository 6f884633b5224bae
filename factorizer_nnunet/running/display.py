"""What a run shows while it works: on a terminal a bar over all steps and below it a line for each running step; in a
log file, which has no bars, these lines every few minutes.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

LINE_SECONDS = 300.0  # between lines about running steps in a log file


class Display:
    """The output of a run, to be closed at its end.

    Args:
        total: number of steps.
    """

    def __init__(self, total: int) -> None:
        self._bar = tqdm(total=total, desc="steps", unit="step", dynamic_ncols=True, mininterval=1, disable=None)
        self._rows: list[tqdm] = []
        self._is_log = self._bar.disable or not sys.stdout.isatty()
        self._last_lines = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        tqdm.write(text)
        sys.stdout.flush()

    def count_done(self) -> None:
        """Move the bar by one step."""
        self._bar.update()

    def show(self, lines: Sequence[str]) -> None:
        """Show how far the running steps are, a line for each."""
        if not self._bar.disable:
            self._show_rows(lines)
        if self._is_log and time.monotonic() - self._last_lines >= LINE_SECONDS:
            self._last_lines = time.monotonic()
            self.say("\n".join(lines))

    def close(self) -> None:
        """Remove the lines and end the bar."""
        self._show_rows([])
        self._bar.close()

    def _show_rows(self, lines: Sequence[str]) -> None:
        while len(self._rows) > len(lines):
            self._rows.pop().close()
        while len(self._rows) < len(lines):
            self._rows.append(tqdm(position=len(self._rows) + 1, bar_format="{desc}", leave=False))
        width = shutil.get_terminal_size().columns - 1  # a longer line would take two, and the next one its place
        for row, line in zip(self._rows, lines, strict=True):
            row.set_description_str(line[:width])
