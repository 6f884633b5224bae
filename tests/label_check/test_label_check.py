"""The command label-check: from a cross-validation to a list, from the filled-in list to corrected labels."""

from __future__ import annotations

import csv
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from skimage import io

from factorizer_nnunet import cli
from factorizer_nnunet.label_check import review
from factorizer_nnunet.label_check.check import CheckedCase, check_labels
from factorizer_nnunet.label_check.corrections import apply_list
from factorizer_nnunet.label_check.review import review_of, write_review
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.probabilities_file import read_probabilities

SHAPE = (24, 18, 10)
SPACING = (1.0, 1.2, 2.0)
CASES = ("=evil", "001", "3-4", "case_d", "case_e", "case_f")
REMOVED, FLIPPED, EMPTY = "001", "=evil", "case_d"
MODEL = "nnUNetTrainerFactorizer__nnUNetFactorizerPlans__3d_fullres"


def _truth(number: int) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3 + number % 3 : 9, 3:9, 2:6] = 1
    labels[16:20, 10:14, 5:8] = 2
    return labels


def _write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    image.SetSpacing(SPACING)
    image.SetOrigin((3.5, -7.25, 11.0))
    sitk.WriteImage(image, str(path))


def _read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six cases, two folds, a model that finds the truth, and three wrong labels."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    raw, model = tmp_path / "nnUNet_raw/Dataset007_Few", tmp_path / "nnUNet_results/Dataset007_Few" / MODEL
    dataset = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    for number, case in enumerate(CASES):
        truth, rng = _truth(number), np.random.default_rng(number)
        label = truth.copy()
        if case == REMOVED:
            label[16:] = 0
        elif case == FLIPPED:
            label = truth[::-1].copy()
        elif case == EMPTY:
            label[:] = 0
        _write(raw / "labelsTr" / f"{case}.nii.gz", label)
        _write(raw / "imagesTr" / f"{case}_0000.nii.gz", (100.0 * truth + rng.normal(200, 9, SHAPE)).astype(np.float32))
        validation = model / f"fold_{number % 2}" / "validation"
        _write(validation / f"{case}.nii.gz", truth)
        probabilities = np.stack([np.where(truth == value, 0.9, 0.05) for value in range(3)]).astype(np.float32)
        np.savez_compressed(validation / f"{case}.npz", probabilities=probabilities.transpose(0, 3, 2, 1))
    for fold in range(2):
        own = CASES[fold::2]
        rows = [{"reference_file": "", "prediction_file": f"{case}.nii.gz", "metrics": {}} for case in own]
        for row, case in zip(rows, own, strict=True):
            row["reference_file"] = str(raw / "labelsTr" / f"{case}.nii.gz")
        summary = {"metric_per_case": rows, "mean": {}, "foreground_mean": {}}
        (model / f"fold_{fold}/validation/summary.json").write_text(json.dumps(summary))
    for folder in (raw, model):
        (folder / "dataset.json").write_text(json.dumps(dataset))
    plans = {"dataset_name": "Dataset007_Few", "plans_name": "nnUNetFactorizerPlans", "configurations": {}}
    (model / "plans.json").write_text(json.dumps(plans))
    return tmp_path


def _folder(study: Path) -> Path:
    return study / "nnUNet_results/Dataset007_Few/label_check" / MODEL


def _check(*more: str) -> int:
    return cli.main(["label-check", "-d", "7", "-c", "3d_fullres", *more])


def _rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open(encoding="utf-8", newline="")))


def _save(file: Path, rows: list[dict[str, str]], delimiter: str = ",", encoding: str = "utf-8") -> None:
    with file.open("w", encoding=encoding, newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter, lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_wrong_labels_are_listed_shown_and_corrected(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = study / "nnUNet_raw"
    before = _contents(raw) | _contents(study / "nnUNet_results/Dataset007_Few" / MODEL)
    assert _check() == 0
    file = _folder(study) / "label_check.csv"
    rows = _rows(file)
    kinds = {(row["case"].lstrip("'"), row["kind"]) for row in rows}
    assert kinds == {(REMOVED, "missing in the label"), (FLIPPED, "flipped"), (EMPTY, "empty label")}
    assert "'=evil" in {row["case"] for row in rows}  # no formula in a spreadsheet
    assert {row["probability"] for row in rows if row["case"] == REMOVED} == {"0.9"}
    page = (_folder(study) / "label_check.html").read_text()
    assert page.count('id="volumes-') == 3
    assert page.count("data:image/jpeg") == 9 * len(rows)

    for row in rows:  # as a spreadsheet in German saves it, and with names it takes for numbers and dates
        row["decision"] = " Correct " if row["kind"] != "empty label" else "by hand"
        row["case"] = {"001": "1", "3-4": "03. Apr"}.get(row["case"], row["case"])
    _save(file, rows, ";", "utf-8-sig")
    capsys.readouterr()
    assert cli.main(["label-check", "--apply", str(file), "-o", str(study / "new")]) == 0
    assert "labels corrected: 2, copied: 4" in capsys.readouterr().out
    labels = raw / "Dataset007_Few/labelsTr"
    assert {path.name for path in (study / "new").iterdir()} == {path.name for path in labels.iterdir()}
    for number, case in enumerate(CASES):
        new, old = study / "new" / f"{case}.nii.gz", labels / f"{case}.nii.gz"
        expected = _truth(number) if case != EMPTY else np.zeros(SHAPE)
        np.testing.assert_array_equal(_read(new), expected)
        one, other = (sitk.ReadImage(str(path)) for path in (new, old))
        assert (one.GetSpacing(), one.GetOrigin(), one.GetDirection()) == (
            other.GetSpacing(), other.GetOrigin(), other.GetDirection()
        )  # fmt: skip
    assert before == _contents(raw) | _contents(study / "nnUNet_results/Dataset007_Few" / MODEL)


def test_a_second_check_keeps_decisions_and_the_edited_list(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _check("--pictures", "0", "--viewer-cases", "0") == 0
    file = _folder(study) / "label_check.csv"
    rows = _rows(file)
    rows[0]["decision"], rows[0]["comment"] = "keep", "seen; see mail"
    _save(file, rows)
    _write(study / "nnUNet_raw/Dataset007_Few/labelsTr/case_f.nii.gz", _truth(0))  # has one finding more now
    assert _check("--pictures", "0", "--viewer-cases", "0") == 0
    assert "filled in" in capsys.readouterr().err
    again = {row["finding"]: (row["decision"], row["comment"]) for row in _rows(file)}
    assert again[rows[0]["finding"]] == ("keep", "seen; see mail")
    assert sum(decision == "keep" for decision, _ in again.values()) == 1
    assert len(again) == len(rows) + 1
    assert [path.name for path in _folder(study).glob("*.edited-*")] == ["label_check.csv.edited-1"]


def test_decisions_stay_where_they_are_if_the_new_list_cannot_be_written(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _check("--pictures", "0", "--viewer-cases", "0") == 0
    file = _folder(study) / "label_check.csv"
    rows = _rows(file)
    rows[0]["decision"] = "keep"
    _save(file, rows)
    before = file.read_bytes()

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(review, "write_text_atomically", full)
        assert _check("--pictures", "0", "--viewer-cases", "0") == 2
    assert file.read_bytes() == before
    assert _check("--pictures", "0", "--viewer-cases", "0") == 0
    assert {row["finding"]: row["decision"] for row in _rows(file)}[rows[0]["finding"]] == "keep"


def test_lists_that_cannot_be_applied_are_refused(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _check("--pictures", "0", "--viewer-cases", "0") == 0
    file = _folder(study) / "label_check.csv"
    rows, out = _rows(file), study / "new"

    def refused(text: str, target: Path = out) -> None:
        capsys.readouterr()
        assert cli.main(["label-check", "--apply", str(file), "-o", str(target)]) == 2
        assert text in capsys.readouterr().err
        assert not out.exists()

    labels = study / "nnUNet_raw/Dataset007_Few/labelsTr"
    refused("is not overwritten", labels)
    refused("is within the folder of the labels", labels / "new")
    for change, text in (
        ({"decision": "perhaps"}, "line 2: decision 'perhaps', expected keep, correct, by hand"),
        ({"finding": "f_0"}, "line 2: no finding 'f_0'"),
    ):
        _save(file, [{**rows[0], **change}, *rows[1:]])
        refused(text)
    _save(file, [{"case": "x"}])
    refused("has no columns 'finding' and 'decision'")
    flipped = next(row for row in rows if row["kind"] == "flipped")
    _save(file, [{**flipped, "decision": "correct"}])
    _write(labels / f"{FLIPPED}.nii.gz", _truth(0))
    refused("files have changed since they were checked")
    _save(file, [{**flipped, "decision": "keep"}])  # all labels are copied, also those without a correction
    refused("files have changed since they were checked")
    (labels / f"{FLIPPED}.nii.gz").unlink()
    refused(f"{FLIPPED}.nii.gz")


def test_without_probabilities_it_says_so(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in study.rglob("*.npz"):
        file.unlink()
    assert _check("--pictures", "0", "--viewer-cases", "0") == 0
    assert "6 of 6 cases have no probabilities" in capsys.readouterr().err
    rows = _rows(_folder(study) / "label_check.csv")
    assert len({row["case"] for row in rows}) == 3
    assert {row["probability"] for row in rows} == {""}


def test_a_named_folder_of_labels_is_the_only_one(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A case that it lacks must not get the label that was to be replaced."""
    labels = study / "nnUNet_raw/Dataset007_Few/labelsTr"
    corrected = study / "corrected"
    shutil.copytree(labels, corrected)
    (corrected / "case_e.nii.gz").unlink()
    assert _check("-r", str(corrected)) == 2
    assert f"looked for {corrected / 'case_e.nii.gz'}" in capsys.readouterr().err
    shutil.copy(labels / "case_e.nii.gz", corrected)
    assert _check("-r", str(corrected), "--pictures", "0", "--viewer-cases", "0") == 0


def test_files_that_do_not_fit_are_all_named(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = study / "nnUNet_raw/Dataset007_Few/labelsTr"
    _write(labels / "001.nii.gz", np.full(SHAPE, 9, np.uint8))
    _write(labels / "3-4.nii.gz", np.zeros((5, 5, 5), np.uint8))
    assert _check() == 2
    error = capsys.readouterr().err
    assert "001.nii.gz: unexpected label values 9" in error
    assert "3-4.nii.gz" in error
    assert not _folder(study).exists()


def test_impossible_options_are_refused_before_anything_is_written(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "file").touch()
    for options, text in (
        (["--channel", "3"], "invalid channel 3"),
        (["--pictures", "-1"], "--pictures -1 must be 0 or more"),
        (["-r", str(study / "no")], f"--references {study / 'no'}: this folder does not exist"),
        (["-i", str(study / "no")], f"--images {study / 'no'}: this folder does not exist"),
        (["-o", str(study / "file")], "file is a file. Name a folder with -o"),
        (["--apply", "list.csv"], "give only --apply and -o"),
    ):
        assert _check(*options) == 2
        assert text in capsys.readouterr().err
    assert cli.main(["label-check", "--apply", str(study / "list.csv")]) == 2
    assert "needs the new folder of labels" in capsys.readouterr().err
    for text in ("list.csv is not a file", f"{study} has no label_check.json. Put the list back"):
        assert cli.main(["label-check", "--apply", str(study / "list.csv"), "-o", str(study / "new")]) == 2
        assert text in capsys.readouterr().err
        (study / "list.csv").touch()
    assert not _folder(study).exists() and not (study / "new").exists()


def test_the_report_shows_what_was_found(study: Path) -> None:
    report = ["report", str(study / "nnUNet_results/Dataset007_Few" / MODEL), "-o", str(study / "report.html")]
    assert cli.main(report) == 0
    assert "factorizer-nnunet label-check -m" in (study / "report.html").read_text()
    assert _check("--pictures", "0", "--viewer-cases", "0") == 0
    assert cli.main(report) == 0
    page = (study / "report.html").read_text()
    assert "flipped: left-right" in page
    _write(study / "nnUNet_raw/Dataset007_Few/labelsTr/case_f.nii.gz", _truth(0))
    assert cli.main(report) == 0
    assert "have changed since they were checked" in (study / "report.html").read_text()


def test_probabilities_are_read_class_by_class(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((3, 4, 5, 6), np.float32)
    np.savez_compressed(tmp_path / "case.npz", probabilities=values)
    for number, one in enumerate(read_probabilities(tmp_path / "case.npz")):
        np.testing.assert_array_equal(one, values[number].transpose(2, 1, 0))
    np.savez(tmp_path / "objects.npz", probabilities=np.array([{}], object))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "case.npz").read_bytes()[:-40])
    for name in ("objects.npz", "cut.npz", "missing.npz"):
        with pytest.raises(OSError):
            list(read_probabilities(tmp_path / name))


def test_2d_pictures_are_checked_and_corrected(tmp_path: Path) -> None:
    truth = np.zeros((20, 30), np.uint8)
    truth[3:9, 4:12] = 1
    label = truth.copy()
    truth[12:17, 20:27] = 1
    for folder, pixels in (("labels", label), ("predicted", truth)):
        (tmp_path / folder).mkdir()
        io.imsave(tmp_path / folder / "x.png", pixels, check_contrast=False)
    dataset = DatasetJson({"labels": {"background": 0, "cell": 1}, "file_ending": ".png"})
    case = CheckedCase("x", tmp_path / "labels/x.png", tmp_path / "predicted/x.png", None)
    found = check_labels([case], dataset).findings
    assert [one.voxels for one in found] == [35]
    write_review(review_of(dataset, [case], found, False), tmp_path)
    list_file = tmp_path / "label_check.csv"
    rows = _rows(list_file)
    _save(list_file, [{**rows[0], "decision": "correct"}], encoding="utf-16")
    apply_list(list_file, tmp_path / "new")
    np.testing.assert_array_equal(io.imread(tmp_path / "new/x.png"), truth)
