"""Zip files from outside: nothing leads out of the folder, nothing fills the disk, and a refused one writes nothing."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from factorizer_nnunet.core import zip_files
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.zip_files import unpack_zip


def with_names(*names: str) -> Callable[[zipfile.ZipFile], None]:
    def add(archive: zipfile.ZipFile) -> None:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"x")

    return add


def link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("weights")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("zeros", bytes(20 << 20), zipfile.ZIP_DEFLATED)


HOSTILE: dict[str, tuple[Callable[[zipfile.ZipFile], None], str]] = {
    "above": (with_names("good", "../evil"), "leads out of its folder"),
    "far above": (with_names("a/../../evil"), "leads out of its folder"),
    "absolute": (with_names("/tmp/evil"), "leads out of its folder"),
    "of another system": (with_names("..\\evil"), "leads out of its folder"),
    "control characters": (with_names("a\nb"), "leads out of its folder"),
    "a link": (link, "weights is a link"),
    "twice": (with_names("plans.json", "Plans.json"), "it has Plans.json twice"),
    "a file in a file": (with_names("a", "a/b"), "truncated or damaged"),
    "too many": (with_names(*map(str, range(1001))), "it has 1001 files, more than 1000"),
    "too large": (bomb, "GiB unpacked, more than"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_files, "MAX_BYTES", 10 << 20)
    fill, message = HOSTILE[what]
    path, folder = tmp_path / "model.zip", tmp_path / "folder"
    with zipfile.ZipFile(path, "w") as archive:
        fill(archive)
    folder.mkdir()
    with pytest.raises(UserError, match=f"model.zip.*{message}.*Fetch it again"):
        unpack_zip(path, folder, "Fetch it again")
    assert {one.name for one in tmp_path.iterdir()} == {"model.zip", "folder"}
    if what != "a file in a file":
        assert not list(folder.iterdir())


def test_a_size_that_the_directory_hides_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1 << 20))
    content = path.read_bytes()
    path.write_bytes(content.replace((1 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(UserError, match="truncated or damaged"):
        unpack_zip(path, tmp_path / "folder", "Fetch it again")
    assert sum(file.stat().st_size for file in (tmp_path / "folder").rglob("*")) <= 100


def test_damage_is_found_by_checksums(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/plans.json", b"content of plans")
    unpack_zip(path, tmp_path / "folder", "")
    assert (tmp_path / "folder" / "a" / "plans.json").read_bytes() == b"content of plans"
    path.write_bytes(path.read_bytes().replace(b"content of", b"contents o"))
    with pytest.raises(UserError, match="damaged"):
        unpack_zip(path, tmp_path / "other", "")


def test_a_full_disk_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights", bytes(1000))
    monkeypatch.setattr(zip_files, "free_space", lambda folder: 999)
    with pytest.raises(UserError, match="and the disk of"):
        unpack_zip(path, tmp_path, "")


def test_only_what_is_chosen_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_files, "MAX_BYTES", 10 << 20)
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/plans.json", b"plans")
        archive.writestr("a/large", bytes(20 << 20))
    unpack_zip(path, tmp_path / "folder", "", lambda names: [name for name in names if name.endswith(".json")])
    assert [file.name for file in (tmp_path / "folder").rglob("*") if file.is_file()] == ["plans.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights", b"x")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zip_files.shutil, "copyfileobj", full)
    with pytest.raises(UserError, match="cannot unpack .*model.zip to .*: No space left on device. Fix that"):
        unpack_zip(path, tmp_path / "folder", "")
