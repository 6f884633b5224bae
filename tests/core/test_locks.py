"""Locks refuse a second process at once, whether or not the file system has locks."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from killed_processes import ended_identity

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock, is_locked
from factorizer_nnunet.core.process_identity import own_identity

TRY = """
import fcntl, sys
from pathlib import Path
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
def none(*_):
    raise OSError({number}, "no locks available")
if {number}:
    fcntl.flock = none
try:
    with file_lock(Path(sys.argv[1]), "busy"):
        print("locked")
except UserError as error:
    print(error)
"""


@pytest.fixture(params=[0, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def missing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """What flock answers; 0 where it works."""

    def none(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    if request.param:
        monkeypatch.setattr(fcntl, "flock", none)
    return request.param


def another(lock: Path, missing: int) -> str:
    """What another process gets that tries to lock the file."""
    command = [sys.executable, "-c", TRY.format(number=missing), str(lock)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def test_one_at_a_time(tmp_path: Path, missing: int) -> None:
    lock = tmp_path / ".lock"
    assert not is_locked(lock)
    with file_lock(lock, "busy"):
        assert another(lock, missing).startswith("busy")
        assert is_locked(lock)
    assert another(lock, missing) == "locked"
    assert not is_locked(lock)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_killed_process_is_no_obstacle_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    lock = tmp_path / ".lock"
    os.symlink(f"{ended_identity()}@here", tmp_path / ".lock.owner")
    assert not is_locked(lock)
    with file_lock(lock, "busy"):
        assert os.readlink(tmp_path / ".lock.owner").startswith(own_identity())


@pytest.mark.parametrize("locks", [True, False])
def test_a_process_elsewhere_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if not locks:
        monkeypatch.setattr(fcntl, "flock", none)
    owner = tmp_path / ".lock.owner"
    os.symlink("12-34-00000000@node7", owner)
    with (
        pytest.raises(UserError, match=f"busy .process 12 on node7; if it is not running any more, remove {owner}"),
        file_lock(tmp_path / ".lock", "busy"),
    ):
        pass


def test_a_lock_file_that_its_owner_removes_locks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a conversion ends between another one's opening and locking of the file."""
    lock, flock, removed = tmp_path / ".lock", fcntl.flock, []

    def remove_first(stream: object, operation: int) -> None:
        if not removed:
            removed.append(lock)
            lock.unlink()
        flock(stream, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with file_lock(lock, "busy"):
        assert another(lock, 0) == "busy"
