"""Folders appear complete or not at all, whatever earlier attempts left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from factorizer_nnunet.core.atomic_files import atomic_folder


def test_a_folder_appears_when_its_block_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with pytest.raises(ZeroDivisionError), atomic_folder(target) as draft:
        (draft / "half").touch()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(target) as draft:
        (draft / "file").touch()
        assert not target.exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "file"]


def test_the_draft_of_a_killed_process_with_the_same_number_is_no_obstacle(tmp_path: Path) -> None:
    stale = tmp_path / f".target.{os.getpid()}.partial"
    stale.mkdir()
    (stale / "half").touch()
    with atomic_folder(tmp_path / "target") as draft:
        (draft / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "file"]
