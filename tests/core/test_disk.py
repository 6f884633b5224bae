"""A full disk is recognised by its free space, whatever a library says."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from factorizer_nnunet.core.disk import existing_parent, free_space, is_disk_full


def test_the_disk_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert existing_parent(tmp_path / "a" / "b") == tmp_path
    assert abs(free_space(tmp_path / "a" / "b") - free_space(tmp_path)) < 1e9


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_an_error_that_says_so_also_as_a_cause(tmp_path: Path, number: int) -> None:
    error = RuntimeError("Error while creating the NDArray")
    error.__cause__ = OSError(number, "full")
    assert is_disk_full(tmp_path, error)


def test_other_errors_on_a_disk_with_space(tmp_path: Path) -> None:
    assert not is_disk_full(tmp_path, OSError(errno.EACCES, "no"))
    assert not is_disk_full(tmp_path, RuntimeError("unexpected pos 64 vs 0"))


def test_hardly_any_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=4096))
    assert is_disk_full(tmp_path, RuntimeError("unexpected pos 64 vs 0"))


def test_no_file_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_files=100, f_favail=0))
    assert is_disk_full(tmp_path)
