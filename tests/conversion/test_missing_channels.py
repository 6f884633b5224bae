"""Cases that lack channels: refused by default, kept with ``--allow-missing``, declared, and reported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conversions import OPTIONS, convert, voxels
from nnunet_folders import use_folders_below
from tree_builder import Tree
from trees import build_tree

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_conversion.challenge import to_challenge
from factorizer_nnunet.dataset_conversion.releases import RELEASES
from factorizer_nnunet.nnunet.conversion_report import constant_images
from factorizer_nnunet.nnunet.dataset_json import DatasetJson

ALLOWED = replace(OPTIONS, allow_missing=True)


def cases_of(tree: Tree) -> tuple[list[str], list[str]]:
    """Labelled and unlabelled cases."""
    return sorted(tree.labels), sorted(tree.unlabelled)


def test_missing_channels_are_refused_with_the_option_that_keeps_them(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    case = cases_of(tree)[0][0]
    tree.images[case][2].unlink()
    with pytest.raises(UserError, match=f"modality T2 is missing: no {case}_t2.nii.gz") as caught:
        convert("brats2021", tmp_path / "source", tmp_path / "raw")
    assert "--allow-missing keeps cases that lack channels, for trainers such as" in str(caught.value)


def test_absent_channels_become_zeros_and_are_declared(tmp_path: Path) -> None:
    """The channel that usually defines the grid, and one that is shown usually; and files of an unlabelled case."""
    tree = build_tree("brats2021", tmp_path / "source")
    (first, second), (unlabelled,) = cases_of(tree)
    for case, number in ((first, 0), (second, 3), (unlabelled, 1), (unlabelled, 3)):
        tree.images[case][number].unlink()
    folder = convert("brats2021", tmp_path / "source", tmp_path / "raw", ALLOWED).folder
    assert DatasetJson.read(folder / "dataset.json").absent_channels == {first: {0}, second: {3}}
    for case, absent in ((first, 0), (second, 3)):
        for number, source in enumerate(tree.images[case]):
            written = voxels(folder / "imagesTr" / f"{case}_{number:04d}.nii.gz")
            expected = np.zeros(written.shape) if number == absent else voxels(source)
            np.testing.assert_array_equal(written, expected)
    assert sorted(path.name for path in (folder / "imagesTs").iterdir()) == [
        f"{unlabelled}_0000.nii.gz",
        f"{unlabelled}_0002.nii.gz",
    ]
    report = json.loads((folder / "conversion_report.json").read_text())
    assert report["counts"]["incomplete"] == 3
    assert [image["treatment"] for image in report["cases"][first]["images"]].count("absent") == 1
    assert report["cases"][first]["grid_channel"] == 1
    assert report["cases"][unlabelled]["images"][3]["file"] is None
    assert any("modality T1 is missing" in note for note in report["cases"][first]["notes"])
    assert report["options"]["allow_missing"] is True
    page = (folder / "conversion_report.html").read_text()
    assert "cases without all channels" in page and "absent" in page
    assert constant_images(folder) == {f"{first}_0000.nii.gz", f"{second}_0003.nii.gz"}


def test_predictions_of_incomplete_cases_go_back(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    case = cases_of(tree)[0][0]
    tree.images[case][0].unlink()
    folder = convert("brats2021", tmp_path / "source", tmp_path / "raw", ALLOWED).folder
    to_challenge(RELEASES["brats2021"], folder / "labelsTr", tmp_path / "out", folder)
    np.testing.assert_array_equal(voxels(tmp_path / "out" / f"{case}.nii.gz"), voxels(tree.labels[case]))


def test_a_channel_that_no_case_has_is_to_be_left_out(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    for case in tree.labels:
        tree.images[case][2].unlink()
    with pytest.raises(UserError, match="T2 is missing in every case .* --channels T1 T1ce FLAIR"):
        convert("brats2021", tmp_path / "source", tmp_path / "raw", ALLOWED)
    assert not (tmp_path / "raw").exists()


def test_a_case_needs_a_channel_that_defines_the_grid(tmp_path: Path) -> None:
    tree = build_tree("isles2022", tmp_path / "source")
    case = cases_of(tree)[0][0]
    for image, channel in zip(tree.images[case], RELEASES["isles2022"].channels, strict=True):
        if not channel.own_grid:
            image.unlink()
    with pytest.raises(UserError, match="modality DWI is missing"):
        convert("isles2022", tmp_path / "source", tmp_path / "raw", ALLOWED)


def test_the_channel_on_its_own_grid_may_be_absent(tmp_path: Path) -> None:
    tree = build_tree("isles2022", tmp_path / "source")
    case = cases_of(tree)[0][0]
    (own,) = (number for number, channel in enumerate(RELEASES["isles2022"].channels) if channel.own_grid)
    tree.images[case][own].unlink()
    folder = convert("isles2022", tmp_path / "source", tmp_path / "raw", ALLOWED).folder
    assert DatasetJson.read(folder / "dataset.json").absent_channels == {case: {own}}
    image = voxels(folder / "imagesTr" / f"{case}_{own:04d}.nii.gz")
    assert image.shape == voxels(folder / "labelsTr" / f"{case}.nii.gz").shape and not image.any()


def test_a_complete_release_is_the_same_with_the_option(tmp_path: Path) -> None:
    build_tree("brats2023-men", tmp_path / "source")
    plain = convert("brats2023-men", tmp_path / "source", tmp_path / "plain").folder
    allowed = convert("brats2023-men", tmp_path / "source", tmp_path / "allowed", ALLOWED).folder
    for file in plain.rglob("*.nii.gz"):
        assert (allowed / file.relative_to(plain)).read_bytes() == file.read_bytes()
    assert (allowed / "dataset.json").read_text() == (plain / "dataset.json").read_text()


def test_the_command_notes_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_folders_below(tmp_path, monkeypatch)
    tree = build_tree("brats2021", tmp_path / "source")
    tree.images[cases_of(tree)[0][1]][1].unlink()
    command = ["convert", "brats2021", str(tmp_path / "source"), "-d", "9", "--allow-missing", "--jobs", "1"]
    assert cli.main(command) == 0
    assert "modality T1ce is missing" in capsys.readouterr().out
