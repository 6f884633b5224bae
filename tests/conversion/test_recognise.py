"""Releases are recognised from their trees; ambiguous trees are an error."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from trees import TREES, build_tree

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_conversion.discover import list_files
from factorizer_nnunet.dataset_conversion.recognise import recognise
from factorizer_nnunet.dataset_conversion.releases import RELEASES


@pytest.mark.parametrize("how", [{}, {"spelled": str.lower, "nested": True}], ids=["as released", "lower, nested"])
@pytest.mark.parametrize("key", TREES)
def test_every_release_is_recognised(key: str, how: dict, tmp_path: Path) -> None:
    tree = build_tree(key, tmp_path / "source", **how)
    assert recognise(list_files([tree.source])) is RELEASES[key]


def test_the_name_of_the_source_counts(tmp_path: Path) -> None:
    tree = build_tree("brats2023-ped", tmp_path / "source")
    (training,) = tree.source.glob("*TrainingData")
    assert recognise(list_files([training])).key == "brats2023-ped"
    moved = training.rename(tmp_path / "children")
    with pytest.raises(
        UserError, match="could belong to brats2023-ped, brats2024-ped or brats2025-ped, .*give the rel"
    ):
        recognise(list_files([moved]))


def test_folders_of_years_with_different_labels_are_ambiguous(tmp_path: Path) -> None:
    tree = build_tree("brats2024-ped", tmp_path / "source")
    shutil.copytree(tree.source / "BraTS-PEDs2024_Training", tree.source / "ASNR-MICCAI-BraTS2023-PED-Challenge-X")
    with pytest.raises(UserError, match="could belong to brats2023-ped or brats2024-ped"):
        recognise(list_files([tree.source]))


def test_several_releases_in_one_source_are_an_error(tmp_path: Path) -> None:
    build_tree("brats2021", tmp_path / "source" / "a")
    build_tree("isles2017", tmp_path / "source" / "b")
    build_tree("brats2020", tmp_path / "source" / "c")
    with pytest.raises(UserError, match="contains several releases, brats20.*give the folder of one"):
        recognise(list_files([tmp_path / "source"]))


def test_a_few_bad_cases_do_not_hide_a_release(tmp_path: Path) -> None:
    tree = build_tree("isles2022", tmp_path / "source")
    tree.images["sub-strokecase0001_ses-0001"][2].unlink()
    assert recognise(list_files([tree.source])).key == "isles2022"


def without_flair(source: Path) -> Path:
    tree = build_tree("isles2022", source)
    for images in tree.images.values():
        images[2].unlink()
    return tree.source


def test_unrequested_channels_may_be_missing(tmp_path: Path) -> None:
    source = without_flair(tmp_path / "source")
    assert recognise(list_files([source]), ["adc", "DWI"]).key == "isles2022"
    tree = build_tree("brats2021", tmp_path / "brats")
    for images in tree.images.values():
        images[0].unlink()
    with pytest.raises(UserError, match="no release is recognised"):
        recognise(list_files([tree.source]))
    assert recognise(list_files([tree.source]), ["FLAIR"]).key == "brats2021"


def test_a_channel_on_its_own_grid_may_be_missing(tmp_path: Path) -> None:
    """Finding the cases then names the missing files and how to leave them out."""
    assert recognise(list_files([without_flair(tmp_path / "source")])).key == "isles2022"


def test_releases_without_the_channels_are_not_considered(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    with pytest.raises(UserError, match="no release with channels T1 Tmax is recognised below .*"):
        recognise(list_files([tree.source]), ["T1", "Tmax"])
    with pytest.raises(UserError, match="invalid channels 'T1 t1': give at least one, each once"):
        recognise(list_files([tree.source]), ["T1", "t1"])


def test_unknown_files_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"")
    with pytest.raises(UserError, match="no release is recognised below .*, among 1 NIfTI files.*convert list"):
        recognise(list_files([tmp_path]))
