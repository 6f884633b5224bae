"""Files and folders appear complete or not at all; drafts are removed when their process has ended, never before."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from killed_processes import ended_identity, left_draft

from factorizer_nnunet.core.atomic_files import (
    atomic_file,
    atomic_folder,
    clear_drafts,
    draft_of,
    is_draft,
    write_text_atomically,
)
from factorizer_nnunet.core.process_identity import has_ended, own_identity


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


def test_the_next_one_to_write_the_same_removes_the_draft_of_a_killed_process(tmp_path: Path) -> None:
    left_draft(tmp_path / "target")
    other = left_draft(tmp_path / "target.old")
    with atomic_folder(tmp_path / "target") as draft:
        (draft / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.name, "target"])


def test_drafts_of_living_processes_and_files_of_others_stay(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "target") as draft:
        draft.write_text("half")
        foreign = tmp_path / ".vacation.partial"
        foreign.touch()
        dead = left_draft(tmp_path / "b")
        clear_drafts(tmp_path)
        assert draft.exists() and foreign.exists() and not dead.exists()


def test_drafts_of_other_hosts_stay_for_a_week(tmp_path: Path) -> None:
    pid, start, _ = own_identity().split("-")
    elsewhere = [tmp_path / f".a.{pid}-{start}-00000000.partial", tmp_path / f".b.{pid}.partial"]
    for draft in elsewhere:
        draft.write_text("half")
    clear_drafts(tmp_path)
    assert all(draft.exists() for draft in elsewhere)
    week = time.time() - 8 * 86_400
    for draft in elsewhere:
        os.utime(draft, (week, week))
    clear_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_with_the_file(tmp_path: Path) -> None:
    """The system names no file when a write fails."""
    with pytest.raises(OSError, match="No space left on device") as raised, atomic_file(tmp_path / "page.html"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.filename == str(tmp_path / "page.html") and raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_names_as_long_as_file_systems_allow(tmp_path: Path) -> None:
    target = tmp_path / ("ü" * 127)
    left_draft_name = draft_of(target).name.replace(own_identity(), ended_identity())
    (tmp_path / left_draft_name).touch()
    write_text_atomically(target, "text")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["text"]


def test_who_has_ended() -> None:
    pid, start, place = own_identity().split("-")
    assert has_ended(own_identity()) is False
    assert has_ended(ended_identity()) is True
    assert has_ended(f"{pid}-{int(start) + 1}-{place}") is True, "a number that is used again"
    assert has_ended(f"{pid}-{start}-00000000") is None
    assert has_ended("no identity") is None


def test_what_is_named_like_a_draft(tmp_path: Path) -> None:
    assert is_draft(draft_of(tmp_path / "case_1.nii.gz"))
    assert not any(is_draft(tmp_path / name) for name in (".partial", "a.partial", ".a.partial", ".a.b.partial"))
