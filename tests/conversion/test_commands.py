"""``convert`` and ``to-challenge`` on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nnunet_folders import use_folders_below, write_fingerprint
from trees import build_tree

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_conversion.releases import RELEASES
from factorizer_nnunet.planning.dataset import plan_dataset


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parent of nnU-Net's folders, and of ``source`` with a tree of BraTS 2023 GLI."""
    use_folders_below(tmp_path, monkeypatch)
    build_tree("brats2023-gli", tmp_path / "source")
    return tmp_path


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_list_shows_every_release(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "list") == 0
    shown = capsys.readouterr().out
    assert all(key in shown and release.example in shown for key, release in RELEASES.items())


def test_a_source_around_nnunets_folder_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sources stay unchanged, and another conversion would find what the first one wrote."""
    assert run("convert", "brats2023-gli", root, "-d", 5, "--name", "Glioma", "--jobs", 1) == 2
    assert f"lies in the source {root}" in capsys.readouterr().err
    assert not list((root / "nnUNet_raw").iterdir())


def test_auto_convert_and_back(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "auto", root / "source", "-d", 5, "--name", "Glioma", "--jobs", 1) == 0
    shown = capsys.readouterr().out
    assert "recognised BraTS 2023" in shown and "Dataset005_Glioma" in shown and "factorizer-nnunet plan -d 5" in shown
    labels = root / "nnUNet_raw" / "Dataset005_Glioma" / "labelsTr"
    assert run("to-challenge", "brats2023-gli", labels, root / "out", "--zip") == 0
    assert (root / "out.zip").is_file()
    assert {path.name for path in (root / "out").iterdir()} == {path.name for path in labels.iterdir()}


def test_files_of_one_shape_elsewhere_are_converted_if_their_geometry_is_to_be_ignored(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One image and its label are 3 mm off, as after an export that lost the origin; a prediction, too."""
    tree = build_tree("brats2023-gli", root / "shifted")
    case = next(iter(tree.labels))
    first, moved = tree.images[case][:2]
    for path in (moved, tree.labels[case]):
        _move(path, 3.0)
    command = ("convert", "brats2023-gli", root / "shifted", "-d", 5, "--name", "Glioma", "--jobs", 1)
    assert run(*command) == 2
    message = capsys.readouterr().err
    assert message.count(f"of {first.name}; if the same voxels are meant nevertheless, give --ignore-geometry") == 2
    assert run(*command, "--ignore-geometry") == 0
    folder = root / "nnUNet_raw" / "Dataset005_Glioma"
    written = [nibabel.load(folder / name) for name in (f"imagesTr/{case}_0001.nii.gz", f"labelsTr/{case}.nii.gz")]
    for image, source in zip(written, (moved, tree.labels[case]), strict=True):
        np.testing.assert_array_equal(image.affine, nibabel.load(first).affine)
        assert np.count_nonzero(image.dataobj) == np.count_nonzero(nibabel.load(source).dataobj)

    shutil.copytree(folder / "labelsTr", root / "predictions")
    _move(root / "predictions" / f"{case}.nii.gz", 3.0)
    back = ("to-challenge", "brats2023-gli", root / "predictions", root / "out")
    assert run(*back) == 2
    assert f"{case}.nii.gz: origin" in (message := capsys.readouterr().err) and "--ignore-geometry" in message
    assert run(*back, "--ignore-geometry") == 0
    submitted = nibabel.load(root / "out" / f"{case}.nii.gz")
    np.testing.assert_array_equal(submitted.affine, nibabel.load(first).affine)


def _move(path: Path, distance_mm: float) -> None:
    image = nibabel.load(path)
    affine = image.affine.copy()
    affine[0, 3] += distance_mm
    moved = nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine)
    path.unlink()
    nibabel.save(moved, path)


def test_dry_run_needs_no_target_and_writes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "brats2023-gli", root / "source", "--dry-run", "--jobs", 1) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert not any((root / "nnUNet_raw").iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["brats2032", "source", "-d", "5"], "unknown release 'brats2032': choose from atlas2, brats2018"),
        (["brats2021"], "no SOURCE"),
        (["brats2021", "source"], "no data set ID"),
        (["brats2021", "nowhere", "-d", "5"], "nowhere is not a folder"),
        (["brats2023-gli", "source", "-d", "0"], "invalid data set ID 0: expected 1 to 999"),
        (["brats2023-gli", "source", "-d", "5", "--channels", "T9"], "no channel 'T9': choose from"),
        (["brats2023-gli", "source", "-d", "5", "--remap", "six=0"], "expected OLD=NEW"),
        (["brats2023-gli", "source", "-d", "5", "--patients", "none.csv"], "cannot read none.csv"),
        (["brats2021", "source", "-d", "5"], "no case of BraTS 2021"),
        (["auto", "empty", "-d", "5"], "no release is recognised"),
    ],
)
def test_invalid_arguments_are_explained(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(root)
    (root / "empty").mkdir()
    assert run("convert", *arguments) == 2
    assert expected in capsys.readouterr().err
    assert not any((root / "nnUNet_raw").iterdir())


@pytest.mark.slow
def test_nnunet_uses_the_folds(root: Path) -> None:
    source = root / "source"
    case = next(path for path in source.rglob("*-seg.nii.gz")).parent
    for number in range(6):
        name = f"BraTS-GLI-9000{number}-000"
        shutil.copytree(case, source / name)
        for path in (source / name).iterdir():
            path.rename(path.with_name(path.name.replace(case.name, name)))
    assert run("convert", "brats2023-gli", source, "-d", 5, "--jobs", 1) == 0
    (data_set,) = (root / "nnUNet_raw").iterdir()
    target = root / "nnUNet_preprocessed" / data_set.name / "splits_final.json"
    folds = json.loads((data_set / "splits_final.json").read_text())
    write_fingerprint(5)
    plan_dataset(5, preprocess=False, num_processes=1)
    assert json.loads(target.read_text()) == folds and len(folds) == 5
    target.write_text(json.dumps(folds[::-1]))
    with pytest.raises(UserError, match="differ from those in"):
        plan_dataset(5, preprocess=False, num_processes=1)
    target.write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        plan_dataset(5, preprocess=False, num_processes=1)


def test_to_challenge_without_a_matching_data_set(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("to-challenge", "brats2021", root, root / "out") == 2
    assert "has no data set converted from brats2021" in capsys.readouterr().err
    assert run("to-challenge", "brats", root, root / "out") == 2
    assert "unknown release 'brats'" in capsys.readouterr().err
