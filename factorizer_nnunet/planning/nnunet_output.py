"""What nnU-Net prints while it plans and preprocesses, without the dictionaries of its settings."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

# nnU-Net prints each configuration twice as a dictionary of a page's length; --show has it as a table.
_SETTINGS = re.compile(r"\{'data_identifier'|.*U-Net configuration:$|Using <class .*reader/writer$", re.DOTALL)


class _WithoutSettings:
    """A stream that drops settings, each printed by one call, and the end of the line after them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._dropped = False

    def write(self, text: str) -> int:
        """Write a text or drop it; returns the number of characters, as streams do."""
        drop = bool(_SETTINGS.match(text)) or (self._dropped and not text.strip())
        self._dropped = drop
        return len(text) if drop else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def without_settings() -> Iterator[None]:
    """Leave nnU-Net's dictionaries of settings out of stdout."""
    with redirect_stdout(_WithoutSettings(sys.stdout)):
        yield
