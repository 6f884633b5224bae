"""``convert`` and ``to-challenge`` on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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


def test_auto_convert_and_back(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "auto", root / "source", "-d", 5, "--name", "Glioma", "--jobs", 1) == 0
    shown = capsys.readouterr().out
    assert "recognised BraTS 2023" in shown and "Dataset005_Glioma" in shown and "factorizer-nnunet plan -d 5" in shown
    labels = root / "nnUNet_raw" / "Dataset005_Glioma" / "labelsTr"
    assert run("to-challenge", "brats2023-gli", labels, root / "out", "--zip") == 0
    assert (root / "out.zip").is_file()
    assert {path.name for path in (root / "out").iterdir()} == {path.name for path in labels.iterdir()}


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
        (["brats2023-gli", "source", "-d", "5", "--jobs", "0"], "invalid --jobs 0: expected at least 1"),
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
