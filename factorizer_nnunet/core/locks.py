"""Locks against a second writer, also on file systems that have none."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.process_identity import has_ended, own_identity

# What flock answers on file systems without it: some network and parallel file systems, some FUSE mounts.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_ATTEMPTS = 20  # to lock a file that others remove meanwhile


class LockedError(UserError):
    """Another process has locked the file."""


@contextlib.contextmanager
def file_lock(lock: Path, busy: str) -> Iterator[None]:
    """Lock the file ``lock`` against other processes; never waits. A killed process unlocks it by ending.

    On file systems without locks, the link ``LOCK.owner`` names the process that has locked it.

    Args:
        lock: the lock file, created if it does not exist. Whoever has locked it may remove it.
        busy: the error message if another process has locked it.

    Raises:
        LockedError: another process has locked the file.
        UserError: it cannot be locked.
        OSError: the file cannot be created.
    """
    stream = _lock(lock, busy)
    try:
        if stream is None:
            with _owned(_owner_link(lock), busy):
                yield
        else:
            _refuse_owner(_owner_link(lock), busy)  # of a host that mounts the same folder without locks
            yield
    finally:
        if stream is not None:
            stream.close()


def is_locked(lock: Path) -> bool:
    """Whether a living process has locked the file, as far as this process can know."""
    owner = _read_owner(_owner_link(lock))
    if owner is not None and not _is_gone(owner):
        return True
    try:
        with lock.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it does not exist, or the file system has no locks
        return False
    return False


def _lock(lock: Path, busy: str) -> TextIO | None:
    """The open, locked file; None if its file system has no locks."""
    for _ in range(_ATTEMPTS):
        stream = lock.open("w")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
                return stream
        except FileNotFoundError:  # its owner removed it meanwhile: the lock would be one on nothing
            pass
        except OSError as error:
            stream.close()
            if isinstance(error, BlockingIOError):
                raise LockedError(busy) from error
            if error.errno in _UNSUPPORTED:
                return None
            raise UserError(f"cannot lock {lock}: {error.strerror}. Use a folder on another disk") from error
        stream.close()
    raise LockedError(busy)


@contextlib.contextmanager
def _owned(link: Path, busy: str) -> Iterator[None]:
    """Hold a link whose target names this process: made in one step, readable at once, refused if it exists."""
    own = f"{own_identity()}@{socket.gethostname()}"
    print(f"NOTE: {link.parent} is on a file system without locks; {link.name} marks it as in use", file=sys.stderr)
    _remove_if_gone(link)
    try:
        os.symlink(own, link)
    except FileExistsError:
        _refuse_owner(link, busy)
        raise LockedError(busy) from None
    except OSError as error:
        raise UserError(
            f"{link.parent} is on a file system with neither locks nor links ({error.strerror}). Use another disk"
        ) from error
    try:
        yield
    finally:
        if _read_owner(link) == own:
            link.unlink(missing_ok=True)


def _refuse_owner(link: Path, busy: str) -> None:
    owner = _read_owner(link)
    if owner is not None and not _is_gone(owner):
        identity, _, host = owner.partition("@")
        process = f"process {identity.split('-')[0]} on {host}"
        raise LockedError(f"{busy} ({process}; if it is not running any more, remove {link})")


def _remove_if_gone(link: Path) -> None:
    """Remove the link of a process that has ended, not that of another one which was faster to do the same."""
    owner = _read_owner(link)
    if owner is None or not _is_gone(owner):
        return
    taken = link.with_name(f"{link.name}.{own_identity()}")
    with contextlib.suppress(FileNotFoundError):
        link.rename(taken)
        found = _read_owner(taken)
        taken.unlink()
        if found is not None and found != owner:
            with contextlib.suppress(FileExistsError):
                os.symlink(found, link)


def _is_gone(owner: str) -> bool:
    return has_ended(owner.partition("@")[0]) is True


def _read_owner(link: Path) -> str | None:
    try:
        return os.readlink(link)
    except OSError:
        return None


def _owner_link(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.owner")
