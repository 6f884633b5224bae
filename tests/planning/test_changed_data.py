"""Data that change after planning: what was made from them is made again or refused, never used silently."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from in_process import use_threads
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from planning_example import NAME, SHAPE, dataset_json, write_image, write_json

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.folds import default_folds
from factorizer_nnunet.planning.dataset import plan_dataset
from factorizer_nnunet.training.data_checks import check_data

PLANS = "nnUNetFactorizerPlans"
DATA = f"{PLANS}_3d_fullres"
Change = Callable[[Path], None]


@pytest.fixture
def planned(raw: Path, folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The dataset's folder in ``nnUNet_preprocessed`` after ``plan -c 3d_fullres``."""
    use_threads(monkeypatch)
    plan()
    return folders / "nnUNet_preprocessed" / NAME


def plan() -> Path:
    return plan_dataset(7, ["3d_fullres"], num_processes=1)


def keep_time(change: Change) -> Change:
    """Make a change that leaves the time of every file as it was, as ``cp -p`` of an older version might."""

    def changed(raw: Path) -> None:
        times = {file: file.stat().st_mtime_ns for file in raw.rglob("*") if file.is_file()}
        change(raw)
        for file, time in times.items():
            if file.exists():
                os.utime(file, ns=(time, time - 10**15))

    return changed


def other_spacing(raw: Path) -> None:
    for file in (*raw.glob("imagesTr/case_1_*"), raw / "labelsTr" / "case_1.nii.gz"):
        image = SimpleITK.ReadImage(str(file))
        image.SetSpacing((2.0, 1.0, 1.0))
        SimpleITK.WriteImage(image, str(file))


def other_image(raw: Path) -> None:
    write_image(raw / "imagesTr" / "case_2_0001.nii.gz", np.random.default_rng(5).normal(size=SHAPE).astype(np.float32))


def other_label(raw: Path) -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[2:9, 3:9, 3:9] = 1
    write_image(raw / "labelsTr" / "case_0.nii.gz", label)


def one_more_case(raw: Path) -> None:
    for file in (*raw.glob("imagesTr/case_2_*"), raw / "labelsTr" / "case_2.nii.gz"):
        shutil.copy2(file, file.with_name(file.name.replace("case_2", "case_3")))
    write_json(raw / "dataset.json", {**dataset_json(), "numTraining": 4})


def one_case_less(raw: Path) -> None:
    for file in (*raw.glob("imagesTr/case_2_*"), raw / "labelsTr" / "case_2.nii.gz"):
        file.unlink()
    write_json(raw / "dataset.json", {**dataset_json(), "numTraining": 2})


def other_labels(raw: Path) -> None:
    write_json(raw / "dataset.json", {**dataset_json(), "labels": {"background": 0, "box": 1, "ignore": 2}})


CHANGES = [other_spacing, other_image, other_label, one_more_case, one_case_less, other_labels]


def content(folder: Path) -> dict[str, Any]:
    """What fingerprint, data and label copies are, to compare; blosc2's files differ each time, so arrays."""
    made: dict[str, Any] = {file.name: file.read_bytes() for file in (folder / "gt_segmentations").iterdir()}
    for file in (folder / DATA).glob("*.pkl"):
        arrays = nnUNetDatasetBlosc2(str(folder / DATA), [file.stem]).load_case(file.stem)[:2]
        made[file.stem] = [file.read_bytes(), *(np.asarray(array[:]).tolist() for array in arrays)]
    return {**made, "fingerprint": json.loads((folder / "dataset_fingerprint.json").read_text())}


def problems(folder: Path, raw: Path | None) -> list[str]:
    """What the trainer says before it starts; refusals raise."""
    return list(check_data(folder, json.loads((folder / f"{PLANS}.json").read_text()), "3d_fullres", raw))


@pytest.mark.parametrize("times", ["newer", "older"])
@pytest.mark.parametrize("change", CHANGES)
def test_planning_again_makes_everything_as_if_for_the_first_time(
    raw: Path, planned: Path, change: Change, times: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert problems(planned, raw) == []
    (change if times == "newer" else keep_time(change))(raw)
    with pytest.raises(UserError) as refused:
        problems(planned, raw)
    assert "factorizer-nnunet plan -d 7" in str(refused.value) or "preprocess again" in str(refused.value)
    capsys.readouterr()
    plan()
    assert "is computed again: its sources have changed since" in capsys.readouterr().out
    assert problems(planned, raw) == []
    again = content(planned)
    shutil.rmtree(planned)
    plan()
    expected = content(planned)
    leftover = set(again) - set(expected)  # a copied label of a removed case harms nobody
    assert leftover <= {"case_2.nii.gz"}
    assert {name: again[name] for name in expected} == expected


def test_unchanged_data_are_kept_whatever_clocks_say(
    raw: Path, planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for days in (-300, 300):
        for file in (*raw.rglob("*"), *planned.rglob("*")):
            if file.is_file():
                time = file.stat().st_mtime + days * 86_400 * (1 if raw in file.parents else -1)
                os.utime(file, (time, time))
        before = {file: file.stat().st_mtime for file in (planned / DATA).iterdir()}
        assert problems(planned, raw) == []
        capsys.readouterr()
        plan()
        out = capsys.readouterr().out
        assert "computed again" not in out and "are complete and kept" in out
        assert {file: file.stat().st_mtime for file in (planned / DATA).iterdir()} == before


def test_raw_data_may_be_missing(raw: Path, planned: Path) -> None:
    assert problems(planned, None) == []


def test_plans_edited_after_preprocessing_are_refused_by_the_trainer(raw: Path, planned: Path) -> None:
    plans = json.loads((planned / f"{PLANS}.json").read_text())
    plans["configurations"]["3d_fullres"]["batch_size"] += 1  # changes nothing
    write_json(planned / f"{PLANS}.json", plans)
    assert problems(planned, raw) == []
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 1.0, 1.0]
    write_json(planned / f"{PLANS}.json", plans)
    for folder in (raw, None):
        with pytest.raises(UserError, match=r"settings in the plans \(changed\).*remove .*factorizer_sources"):
            problems(planned, folder)


def test_the_record_can_be_removed_to_train_on_data_as_they_are(raw: Path, planned: Path) -> None:
    other_image(raw)
    with pytest.raises(UserError, match="To train on them as they are, remove ") as refused:
        problems(planned, raw)
    Path(str(refused.value).rsplit("remove ", 1)[1]).unlink()
    (warning,) = problems(planned, raw)
    assert "have later times than the preprocessed data" in warning


def test_data_that_a_stock_command_made_again_are_used(raw: Path, planned: Path) -> None:
    other_image(raw)
    preprocess_dataset(7, PLANS, ["3d_fullres"], [1])
    (warning,) = problems(planned, raw)
    assert "is not as factorizer-nnunet plan made it: case_2 (changed). Unless another command" in warning


@pytest.mark.parametrize("ending", [".b2nd", "_seg.b2nd", ".pkl"])
def test_half_a_preprocessed_file(raw: Path, planned: Path, ending: str) -> None:
    file = planned / DATA / f"case_1{ending}"
    complete = file.read_bytes()
    file.write_bytes(complete[: len(complete) // 2])
    with pytest.raises(UserError, match=r"files of 1 case are incomplete \(case_1\)\. Preprocess again: nnUNetv2_pre"):
        problems(planned, raw)
    plan()
    assert file.read_bytes() == complete


def test_folds_by_hand_are_never_replaced(raw: Path, planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folds = [{"train": ["case_0"], "val": ["case_1"]}]
    write_json(planned / "splits_final.json", folds)
    plan()
    assert "WARNING: " in (out := capsys.readouterr().out) and "1 case in no fold, so never trained on: case_2" in out
    (planned / "splits_final.json").write_text("[{")
    with pytest.raises(UserError, match=r"splits_final.json is not valid JSON.*Correct the file, or move it away"):
        plan()
    assert (planned / "splits_final.json").read_text() == "[{"


def test_a_case_that_nnunets_folds_do_not_have_is_refused(raw: Path, planned: Path) -> None:
    for number in (3, 4):
        for file in (*raw.glob("imagesTr/case_2_*"), raw / "labelsTr" / "case_2.nii.gz"):
            shutil.copy2(file, file.with_name(file.name.replace("case_2", f"case_{number}")))
    write_json(raw / "dataset.json", {**dataset_json(), "numTraining": 5})
    write_json(planned / "splits_final.json", default_folds([f"case_{number}" for number in range(5)]))
    plan()
    for file in (*raw.glob("imagesTr/case_2_*"), raw / "labelsTr" / "case_2.nii.gz"):
        shutil.copy2(file, file.with_name(file.name.replace("case_2", "case_9")))
    write_json(raw / "dataset.json", {**dataset_json(), "numTraining": 6})
    with pytest.raises(UserError, match=r"1 case in no fold, so never trained on: case_9\. .* or move it away"):
        plan()


def test_a_full_disk_is_foreseen(raw: Path, planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(planned)
    other_image(raw)
    monkeypatch.setattr("factorizer_nnunet.planning.space.free_space", lambda folder: 100)
    with pytest.raises(UserError, match=r"has 0\.0 GB free, but preprocessing will write at least .* Free space"):
        plan()
    after = content(planned)
    assert {name: after[name] for name in ("case_0", "case_1", "case_2")} == {
        name: before[name] for name in ("case_0", "case_1", "case_2")
    }
