"""Predictions are converted to the format of a challenge, and invalid ones are rejected."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conversions import OPTIONS, convert, voxels
from trees import build_tree

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.dataset_conversion import challenge
from factorizer_nnunet.dataset_conversion.challenge import find_data_set, to_challenge
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.releases import RELEASES


def test_the_data_set_of_predictions_is_found(tmp_path: Path) -> None:
    tree, raw = build_tree("brats2021", tmp_path / "source"), tmp_path / "raw"
    release = RELEASES["brats2021"]
    folder = convert("brats2021", tree.source, raw).folder
    assert find_data_set(release, folder / "labelsTr", raw, None) == folder
    convert("brats2021", tree.source, raw, Options(dataset_id=8))
    with pytest.raises(UserError, match="all have these cases: choose one with -d"):
        find_data_set(release, folder / "labelsTr", raw, None)
    for given in ("137", folder.name):
        assert find_data_set(release, folder / "labelsTr", raw, given) == folder
    (tmp_path / "some").mkdir()
    for name in (next((folder / "labelsTr").iterdir()).name, "other.nii.gz"):
        (tmp_path / "some" / name).touch()
    with pytest.raises(UserError, match=r"Dataset008_.* has all but other: are these predictions, too\?"):
        find_data_set(release, tmp_path / "some", raw, None)
    with pytest.raises(UserError, match="has no data set converted from brats2018"):
        find_data_set(RELEASES["brats2018"], folder / "labelsTr", raw, None)
    with pytest.raises(UserError, match=rf"give another -d\. {folder.name} was converted from brats2021"):
        find_data_set(RELEASES["brats2018"], folder / "labelsTr", raw, "137")


def test_all_invalid_predictions_are_reported_at_once(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    folder = convert("brats2021", tree.source, tmp_path / "raw").folder
    predictions = tmp_path / "predictions"
    shutil.copytree(folder / "labelsTr", predictions)
    first, second = sorted(predictions.iterdir())[:2]
    image = nibabel.load(first)
    nibabel.save(nibabel.Nifti1Image(voxels(first)[1:], image.affine), first)
    values = voxels(second).copy()
    values[0, 0, 0] = 7
    nibabel.save(nibabel.Nifti1Image(values, nibabel.load(second).affine), second)
    shutil.copyfile(second, predictions / "BraTS2021_99999.nii.gz")
    with pytest.raises(UserError) as error:
        to_challenge(RELEASES["brats2021"], predictions, tmp_path / "out", folder)
    text = str(error.value)
    assert text.startswith("3 problems") and "shape" in text and "label values 7" in text and "is not a case" in text
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="already exists"):
        to_challenge(RELEASES["brats2021"], folder / "labelsTr", tmp_path / "out", folder)


def test_predictions_with_another_ending_or_the_values_of_the_challenge(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    folder = convert("brats2021", tree.source, tmp_path / "raw").folder
    converted = to_challenge(RELEASES["brats2021"], folder / "labelsTr", tmp_path / "out", folder).folder
    renamed = sorted(converted.iterdir())[0]
    renamed.rename(converted / "BraTS2021_00777.NII.GZ")
    with pytest.raises(UserError) as error:
        to_challenge(RELEASES["brats2021"], converted, tmp_path / "again", folder)
    text = str(error.value)
    assert "BraTS2021_00777.NII.GZ is not a case of" in text and "predictions end with .nii.gz: rename it" in text
    assert "this data set has [0, 1, 2, 3]; all are values of the challenge: was this file converted before?" in text


def test_archive_contains_only_the_files(tmp_path: Path) -> None:
    tree = build_tree("brats2023-gli", tmp_path / "source")
    folder = convert("brats2023-gli", tree.source, tmp_path / "raw").folder
    submission = to_challenge(RELEASES["brats2023-gli"], folder / "labelsTr", tmp_path / "out", folder, archive=True)
    assert submission.archive == tmp_path / "out.zip"
    with zipfile.ZipFile(submission.archive) as archive:
        assert sorted(archive.namelist()) == sorted(f"{case}.nii.gz" for case in tree.labels)


def test_missing_predictions_are_named(tmp_path: Path) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    folder = convert("brats2021", tree.source, tmp_path / "raw").folder
    release = RELEASES["brats2021"]
    (tmp_path / "some").mkdir()
    first, *others = sorted(tree.labels)
    shutil.copyfile(folder / "labelsTr" / f"{first}.nii.gz", tmp_path / "some" / f"{first}.nii.gz")
    assert to_challenge(release, tmp_path / "some", tmp_path / "out", folder).missing == tuple(others)
    # A prediction of an unlabelled case: the submission is about unlabelled cases only.
    test_case = next(iter(tree.unlabelled))
    image = nibabel.load(tree.images[test_case][0])
    prediction = nibabel.Nifti1Image(np.full(image.shape, 3, np.uint8), image.affine)
    nibabel.save(prediction, tmp_path / "some" / f"{test_case}.nii.gz")
    submission = to_challenge(release, tmp_path / "some", tmp_path / "out2", folder)
    assert submission.cases == 2 and submission.missing == tuple(sorted(tree.unlabelled - {test_case}))
    assert set(np.unique(voxels(tmp_path / "out2" / f"{test_case}.nii.gz"))) == {4}
    shutil.copyfile(tmp_path / "some" / f"{first}.nii.gz", tmp_path / "some" / f"{first}.nii")
    with pytest.raises(UserError, match=rf"{first}.nii is not a case"):
        to_challenge(release, tmp_path / "some", tmp_path / "out3", folder)


def test_submission_named_after_a_missing_file(tmp_path: Path) -> None:
    tree = build_tree("isles2017", tmp_path / "source")
    for path in [path for path in tree.source.rglob("*") if ".MR_MTT." in path.name and path.is_file()]:
        path.unlink()
    folder = convert("isles2017", tree.source, tmp_path / "raw", replace(OPTIONS, channels=["ADC"])).folder
    with pytest.raises(UserError, match="named after the number of the mtt file, which the source"):
        to_challenge(RELEASES["isles2017"], folder / "labelsTr", tmp_path / "out", folder)


def test_a_submission_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = build_tree("brats2021", tmp_path / "source")
    folder = convert("brats2021", tree.source, tmp_path / "raw").folder

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(challenge, "_pack", full_disk)
    with pytest.raises(UserError, match="cannot write .*No space left"):
        to_challenge(RELEASES["brats2021"], folder / "labelsTr", tmp_path / "out", folder, archive=True)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize("name", ["../../victim", "/tmp/victim", "a/b", "..", ""])
def test_names_in_the_report_do_not_lead_outside(tmp_path: Path, name: str) -> None:
    tree = build_tree("isles2017", tmp_path / "source")
    folder = convert("isles2017", tree.source, tmp_path / "raw").folder
    file = folder / "conversion_report.json"
    report = json.loads(file.read_text())
    first = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir())[0]
    report["cases"][first]["fields"]["mtt"] = name
    file.write_text(json.dumps(report))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="conversion_report.json: mtt"):
        to_challenge(RELEASES["isles2017"], folder / "labelsTr", tmp_path / "sub" / "out", folder)
    report["cases"][first]["images"][0]["file"] = f"imagesTr/{name or '..'}/x.nii.gz"
    report["cases"][first]["fields"]["mtt"] = "1"
    report["cases"][first]["grid_channel"] = 0
    file.write_text(json.dumps(report))
    if name not in ("a/b", ""):
        with pytest.raises(UserError, match="conversion_report.json: an image"):
            to_challenge(RELEASES["isles2017"], folder / "labelsTr", tmp_path / "sub" / "out", folder)
    assert set(tmp_path.rglob("*")) == before
