"""Every file below the sources is listed once, through links and unpackers' folders; unreadable ones are reported."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conversions import check_all_found, find
from nifti_files import labels, write
from tree_builder import SHAPE
from trees import build_tree

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_conversion.discover import list_files


def test_unpackers_folders_and_files_are_ignored_or_resolved(tmp_path: Path) -> None:
    tree = build_tree("brats2024-ped", tmp_path / "source")
    first = tree.images["BraTS-PED-00002-000"][0]
    wrapper = first.with_name(first.name.removesuffix(".gz"))
    wrapper.mkdir()
    wrapped = first.rename(wrapper / "volume.nii.gz")
    tree.images["BraTS-PED-00002-000"] = (wrapped, *tree.images["BraTS-PED-00002-000"][1:])
    (first.parent / "loop").symlink_to(tree.source)
    for junk in ("__MACOSX (2)", ".hidden", "_old"):
        shutil.copytree(first.parent.parent, tree.source / junk, symlinks=True)
    found = find("brats2024-ped", tree.source)
    check_all_found(found, tree)
    shown = wrapper.relative_to(tree.source.parent)
    text = f"{tree.source}: folders with file names, replaced by the single NIfTI file inside: 1, e.g. {shown}"
    assert text in map(str, found.notes)

    write(wrapper / "another.nii", labels("x", SHAPE, (1,)))
    found = find("brats2024-ped", tree.source)
    assert "contains 2 NIfTI files, expected one" in str(found.problems[0])
    assert "modality T1n is missing: no BraTS-PED-00002-000/" not in str(found.problems[1])
    assert "modality T1n is missing: no BraTS-PED-00002-000-t1n.nii.gz or .nii" in str(found.problems[1])


def test_a_source_within_another_is_listed_once(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    inner = next(path for path in tree.source.iterdir() if path.is_dir())
    found = find("brats2021", tree.source, inner)
    check_all_found(found, tree)
    assert not any("copy" in note.text for note in found.notes)


def test_sources_must_be_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is not a folder"):
        list_files([tmp_path / "nowhere"])
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="set.zip is a file; unpack it and give the folder"):
        list_files([tmp_path / "set.zip"])


@pytest.mark.parametrize("name", ["BraTS2021_00001", "VSD.Brain.XX.O.MR_ADC.128020", "x_t1.nii.gz", "x_t1.nii"])
def test_broken_links_are_problems(name: str, tmp_path: Path) -> None:
    """They may have led to a case's folder or file."""
    tree = build_tree("brats2021", tmp_path / "source")
    link = tree.source / name
    link.symlink_to(tmp_path / "gone")
    (problem,) = find("brats2021", tree.source).problems
    assert (problem.case, str(problem)) == ("", f"{link}: is a broken link to {tmp_path / 'gone'}")


def test_valid_links_and_broken_links_to_other_files_are_not_problems(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    for name in ("survival.csv", "table.XLSX", "notes.7z", ".hidden", "_old"):
        (tree.source / name).symlink_to(tmp_path / "gone")
    (tmp_path / "licence").write_text("as you like")
    (tree.source / "LICENCE").symlink_to(tmp_path / "licence")
    case = tree.labels["BraTS2021_00000"].parent
    case.rename(tmp_path / "elsewhere")
    case.symlink_to(tmp_path / "elsewhere")
    check_all_found(find("brats2021", tree.source), tree)


def test_a_link_in_a_circle_is_a_problem(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    (tree.source / "a").symlink_to("b")
    (tree.source / "b").symlink_to("a")
    assert [str(problem) for problem in find("brats2021", tree.source).problems] == [
        f"{tree.source / 'a'}: is a broken link to b",
        f"{tree.source / 'b'}: is a broken link to a",
    ]


def test_pipes_and_devices_are_never_opened(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    image = tree.images["BraTS2021_00000"][0]
    image.unlink()
    os.mkfifo(image)
    device = tree.images["BraTS2021_00002"][0]
    device.unlink()
    device.symlink_to("/dev/zero")
    wrapper = tree.source / "BraTS2021_00003_t1.nii"
    wrapper.mkdir()
    os.mkfifo(wrapper / "a.nii")
    (tree.source / "folder.nii").mkdir()
    listing = list_files([tree.source])
    assert {file.path for file in listing.files}.isdisjoint({image, device, wrapper / "a.nii"})
    what = "is a pipe, socket or device, expected a file"
    assert {(problem.path, problem.text) for problem in listing.problems} == {
        (image, what),
        (device, what),
        (wrapper / "a.nii", what),
        (tree.source / "folder.nii", "is a folder with a file's name and contains 0 NIfTI files, expected one"),
    }
    found = find("brats2021", tree.source)
    assert {problem.case for problem in found.problems} == {"", "BraTS2021_00000", "BraTS2021_00002"}


def test_unreadable_folders_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated, because file modes do not restrict an administrator."""
    tree = build_tree("brats2021", tmp_path / "source")
    bad = tree.labels["BraTS2021_00000"].parent
    scan = os.scandir

    def refusing(path: str) -> object:
        if Path(path) == bad:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", refusing)
    found = find("brats2021", tree.source)
    (problem,) = found.problems
    assert (problem.case, str(problem)) == ("", f"{bad}: cannot be read: Permission denied")
    assert "BraTS2021_00000" not in {case.name for case in found.cases}
