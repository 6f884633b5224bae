"""What is taken for changed, whatever clocks say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from factorizer_nnunet.core.file_stamps import (
    ADDED,
    CHANGED,
    REMOVED,
    changed_sources,
    record_sources,
    stamp_of,
    stamp_of_ends,
    stamp_of_value,
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("a", "b")}
    for name, path in made.items():
        path.write_text(name * 100)
    return made


def test_nothing_is_known_without_a_record(tmp_path: Path, files: dict[str, Path]) -> None:
    assert changed_sources(tmp_path / "record.json", files) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"sources": 1, "made": {}}', '{"sources": {"a": {"size": 1}}, "made": {}}']
)
def test_a_damaged_record_is_none(tmp_path: Path, files: dict[str, Path], text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    assert changed_sources(tmp_path / "record.json", files) is None


@pytest.mark.parametrize("days", [-400, 400])
def test_times_alone_change_nothing(tmp_path: Path, files: dict[str, Path], days: int) -> None:
    record_sources(tmp_path / "made" / "record.json", files, {})
    time = files["a"].stat().st_mtime + days * 86_400
    os.utime(files["a"], (time, time))
    assert changed_sources(tmp_path / "made" / "record.json", files) == {}


@pytest.mark.parametrize("days", [-400, 400])
def test_other_content_of_the_same_size_is_a_change_at_any_time(
    tmp_path: Path, files: dict[str, Path], days: int
) -> None:
    record_sources(tmp_path / "record.json", files, {})
    time = files["a"].stat().st_mtime + days * 86_400
    files["a"].write_text("x" * 100)
    os.utime(files["a"], (time, time))
    assert changed_sources(tmp_path / "record.json", files) == {"a": CHANGED}


def test_added_removed_and_missing_sources(tmp_path: Path, files: dict[str, Path]) -> None:
    record_sources(tmp_path / "record.json", files, {})
    files["b"].unlink()
    files["c"] = tmp_path / "c"
    del files["a"]
    assert changed_sources(tmp_path / "record.json", files) == {"a": REMOVED, "b": CHANGED, "c": ADDED}


def test_values_are_sources_too(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record_sources(record, {"labels": stamp_of_value({"b": 1, "a": [1, 2]})}, {})
    assert changed_sources(record, {"labels": stamp_of_value({"a": [1, 2], "b": 1})}) == {}
    assert changed_sources(record, {"labels": stamp_of_value({"a": [1, 3], "b": 1})}) == {"labels": CHANGED}


def test_known_stamps_are_not_taken_again(tmp_path: Path, files: dict[str, Path]) -> None:
    stamp = stamp_of(files["a"])
    files["a"].chmod(0)
    record_sources(tmp_path / "record.json", {"a": files["a"]}, {}, {files["a"]: stamp})
    assert changed_sources(tmp_path / "record.json", {"a": stamp}) == {}


def test_a_record_says_nothing_about_what_was_made_later(tmp_path: Path, files: dict[str, Path]) -> None:
    record, made = tmp_path / "record.json", tmp_path / "made"
    made.write_text("first")
    record_sources(record, files, {"made": stamp_of(made)})
    files["a"].write_text("changed")
    assert changed_sources(record, files, {"made": stamp_of(made)}) == {"a": CHANGED}
    made.write_text("second")
    assert changed_sources(record, files, {"made": stamp_of(made)}) is None


def test_the_ends_of_large_files_tell_them_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "1" / "x", tmp_path / "2" / "x"
    content = bytes(range(256)) * 2000
    for path, written in ((one, content), (other, content)):
        path.parent.mkdir()
        path.write_bytes(written)
    (tmp_path / "loop").symlink_to("loop")
    assert stamp_of_ends([one, tmp_path / "missing", tmp_path / "loop"]).sha256 == stamp_of_ends([other]).sha256
    for position in (0, -1):
        changed = bytearray(content)
        changed[position] ^= 1
        other.write_bytes(changed)
        os.utime(other, ns=(1, 7 + position))
        assert stamp_of_ends([one]).sha256 != stamp_of_ends([other]).sha256
