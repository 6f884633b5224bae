"""Files and folders that appear complete or not at all, and locks against a second writer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from factorizer_nnunet.core.errors import UserError


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a draft next to ``path`` that is renamed to ``path`` if the block succeeds, and removed otherwise.

    So neither a reader nor a kill ever leaves half a file.
    """
    draft = _draft_of(path)
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` completely or not at all."""
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder next to ``path`` that is renamed to ``path`` if the block succeeds, and removed otherwise.

    Raises:
        OSError: ``path`` exists and is not empty.
    """
    draft = _draft_of(path)
    shutil.rmtree(draft, ignore_errors=True)  # left by a killed process with the same number, as in containers
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # already renamed if all went well


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextlib.contextmanager
def file_lock(lock: Path, busy: str) -> Iterator[None]:
    """Lock the file ``lock`` against other processes; the system unlocks it when this process ends, however it ends.

    Args:
        lock: the lock file, created if it does not exist.
        busy: the error message if another process has locked it.

    Raises:
        UserError: another process has locked the file, or the file system has no locks.
        OSError: the file cannot be created.
    """
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(busy) from error
        except OSError as error:  # ENOLCK or ENOTSUP, as some network file systems answer
            raise UserError(
                f"{lock} cannot be locked ({error.strerror}): its file system has no locks. Use a local disk"
            ) from error
        yield
