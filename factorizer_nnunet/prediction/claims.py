"""Cases claimed by one process, so that several commands on one output folder share the work."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType

from factorizer_nnunet.core.locks import LockedError, file_lock, is_locked
from factorizer_nnunet.nnunet.prediction_record import RECORDS

_BUSY = "another process predicts this case"


class Claims:
    """Locks, one file per case, in the output folder; within a ``with`` block.

    A process that ends, however it ends, gives up its claims.

    Args:
        folder: of the predictions; it must have its folder of records.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / RECORDS
        self._taken: dict[str, contextlib.ExitStack] = {}

    def take(self, case: str) -> bool:
        """Claim a case; False if another process has it.

        Raises:
            UserError: the file system cannot lock.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file_lock(self._file(case), _BUSY))
            except LockedError:
                return False
            self._taken[case] = stack.pop_all()
        return True

    def release(self, case: str) -> None:
        """Give up a claim and remove its file."""
        stack = self._taken.pop(case, None)
        if stack is not None:
            with stack:
                self._file(case).unlink(missing_ok=True)

    def is_taken(self, case: str) -> bool:
        """Whether a living process has claimed a case."""
        return is_locked(self._file(case))

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for case in list(self._taken):
            self.release(case)

    def _file(self, case: str) -> Path:
        return self._folder / f"{case}.lock"
