"""What is said of folds that do not fit the dataset they are used with."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.fold_checks import check_fold, check_folds, checked_folds
from factorizer_nnunet.nnunet.folds import default_folds

CASES = frozenset(f"case_{number:02d}" for number in range(10))
PATIENTS = {case: f"patient_{int(case[-2:]) // 2}" for case in CASES}


def folds() -> list[dict[str, list[str]]]:
    ordered = sorted(CASES)
    parts = [ordered[2 * k : 2 * k + 2] for k in range(5)]
    return [{"train": sorted(CASES - set(part)), "val": part} for part in parts]


def test_good_folds_pass() -> None:
    found = check_folds(folds(), CASES, PATIENTS, made_by_hand=False)
    assert not found.problems and not found.warnings


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "must be a list of folds"),
        ([], "must be a list of folds"),
        ("[]", "must be a list of folds"),
        ([["case_00"]], "fold 0 must be an object with train and val"),
        ([{"train": ["case_00"]}], "fold 0 must be an object with train and val"),
        ([{"train": "case_00", "val": ["case_01"]}], "train of fold 0 must be a list of case names"),
        ([{"train": ["case_00"], "val": [1]}], "val of fold 0 must be a list of case names"),
        ([{"train": ["case_00"], "val": []}], "val of fold 0 is empty"),
        ([{"train": ["case_00", "case_00"], "val": ["case_01"]}], "names cases twice: case_00"),
    ],
)
def test_shapes_that_are_not_folds(content: Any, expected: str) -> None:
    (problem, *_) = check_folds(content, CASES, {}, made_by_hand=True).problems
    assert expected in problem


def test_a_case_on_both_sides() -> None:
    content = folds()
    content[1]["train"].append("case_02")
    assert "fold 1 trains and validates on the same cases: case_02" in check_folds(content, CASES, {}, True).problems


def test_cases_that_do_not_exist() -> None:
    content = folds()
    content[3]["val"].append("case_99")
    assert check_folds(content, CASES, {}, True).problems == (
        "fold 3 names cases that the dataset does not have: case_99",
    )


def test_a_patient_on_both_sides() -> None:
    content = folds()
    for fold in content:
        fold["train"] = [name for name in fold["train"] if name != "case_01"]
    content[0]["train"].append("case_01")
    content[0]["val"].remove("case_01")
    problems = check_folds(content, CASES, PATIENTS, True).problems
    assert problems == ("fold 0 trains and validates on cases of the same patients: patient_0",)


@pytest.mark.parametrize("made_by_hand", [True, False])
def test_a_case_in_no_fold(made_by_hand: bool) -> None:
    found = check_folds(folds(), CASES | {"new"}, {}, made_by_hand)
    texts = found.warnings if made_by_hand else found.problems
    assert texts == ("1 case in no fold, so never trained on: new",)


def test_a_case_validated_twice_or_never_is_a_warning() -> None:
    content = folds()
    content[4]["val"] = list(content[3]["val"])
    content[4]["train"] = sorted(CASES - set(content[3]["val"]))
    found = check_folds(content, CASES, {}, False)
    assert not found.problems
    assert found.warnings == (
        "2 cases validated in more than one fold: case_06, case_07",
        "2 cases validated in no fold: case_08, case_09",
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(sorted(CASES)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["train", "val", "x"]), inner),
    max_leaves=12,
)


@given(json_values)
def test_no_content_raises(content: Any) -> None:
    check_folds(content, CASES, PATIENTS, made_by_hand=True)


@given(st.data())
def test_every_single_damage_is_found(data: st.DataObject) -> None:
    content = copy.deepcopy(folds())
    fold = data.draw(st.sampled_from(content))
    part = data.draw(st.sampled_from(["train", "val"]))
    other = "val" if part == "train" else "train"
    damage = data.draw(st.sampled_from(["move", "unknown", "twice", "number", "drop part", "not a list"]))
    if damage == "move":
        fold[other].append(fold[part][0])
    elif damage == "unknown":
        fold[part][0] += "x"
    elif damage == "twice":
        fold[part].append(fold[part][0])
    elif damage == "number":
        fold[part][0] = 7  # type: ignore[call-overload]
    elif damage == "drop part":
        del fold[part]
    else:
        fold[part] = fold[part][0]  # type: ignore[assignment]
    assert check_folds(content, CASES, {}, made_by_hand=True).problems


def test_a_fold_beyond_the_files_must_not_divide_patients(tmp_path: Path) -> None:
    report = {"cases": {case: {"patient": patient} for case, patient in PATIENTS.items()}}
    (tmp_path / "conversion_report.json").write_text(json.dumps(report))
    file = file_with(tmp_path, folds())
    check_fold(4, file, CASES, tmp_path)
    check_fold("all", file, CASES, tmp_path)
    check_fold(7, file, CASES, None)
    with pytest.raises(UserError, match=r"fold 7 is not one of the 5 folds of .*splits_final.json: nnU-Net would draw"):
        check_fold(7, file, CASES, tmp_path)
    single = {"cases": {case: {"patient": case} for case in PATIENTS}}
    (tmp_path / "conversion_report.json").write_text(json.dumps(single))
    check_fold(7, file, CASES, tmp_path)


def test_folds_that_do_not_exist_need_five_cases(tmp_path: Path) -> None:
    file = tmp_path / "splits_final.json"
    check_fold(0, file, CASES, None)
    assert not file.exists()
    with pytest.raises(UserError, match=r"3 training cases are too few for 5 folds"):
        check_fold(0, file, set(sorted(CASES)[:3]), None)
    check_fold("all", file, set(sorted(CASES)[:3]), None)


def file_with(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps(content))
    return file


def test_a_case_added_later_is_refused_in_nnunets_folds_only(tmp_path: Path) -> None:
    file = file_with(tmp_path, default_folds(CASES))
    assert not checked_folds(file, CASES, None).warnings
    with pytest.raises(UserError, match=r"1 case in no fold, so never trained on: new\. Correct the file, or move it"):
        checked_folds(file, CASES | {"new"}, None)
    by_hand = folds()
    by_hand[0]["val"], by_hand[1]["val"] = by_hand[1]["val"], by_hand[0]["val"]
    for number in (0, 1):
        by_hand[number]["train"] = sorted(CASES - set(by_hand[number]["val"]))
    file = file_with(tmp_path, by_hand)
    assert checked_folds(file, CASES | {"new"}, None).warnings == ("1 case in no fold, so never trained on: new",)
    assert json.loads(file.read_text()) == by_hand
