"""What nnU-Net writes into a fold's folder before a checkpoint or a time can be refused: it must not stay."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from factorizer_nnunet.core.errors import UserError


class NewFiles:
    """The files that appear in a folder after this was made.

    Args:
        folder: need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._existed = folder.is_dir()
        self._before = {path.name for path in folder.iterdir()} if self._existed else set()

    @contextlib.contextmanager
    def removed_if_refused(self) -> Iterator[None]:
        """Remove them if the block raises UserError, and the folder if it is new, too."""
        try:
            yield
        except UserError:
            for path in self._folder.iterdir() if self._folder.is_dir() else ():
                if path.name not in self._before and path.is_file():
                    path.unlink(missing_ok=True)
            if not self._existed:
                with contextlib.suppress(OSError):
                    self._folder.rmdir()
            raise
