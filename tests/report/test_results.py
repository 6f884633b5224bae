"""Folders of results: what is read from them, and that all problems are reported at once."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from results_example import DATASET_JSON, Study, add_model, write_predictions, write_study, write_volume

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.report.results import Result, read_results
from factorizer_nnunet.report.sources import Sources
from factorizer_nnunet.report.study import check_case_sets
from factorizer_nnunet.report.titles import titles_for


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return write_study(tmp_path)


def read(study: Study, *folders: Path, partial: bool = False, **sources: Path) -> list[Result]:
    return read_results(folders, Sources(**sources, environment=study.environment), None, partial)


def problems_of(study: Study, *folders: Path, **sources: Path) -> list[str]:
    with pytest.raises(UserError) as error:
        read(study, *folders, **sources)
    first, *problems = str(error.value).split("\n  ")
    assert first == "these results cannot be used:"
    return problems


def test_a_models_folder_is_read_with_its_folds_files_and_curves(study: Study) -> None:
    (result,) = read(study, add_model(study, "nnUNetTrainer", 0.2))
    assert result.names == study.cases and result.folds == ("0", "1", "2", "3", "4")
    case = result.cases[7]
    assert case.fold == "2" and case.prediction.parent.parent.name == "fold_2"
    assert case.reference == study.raw / "labelsTr" / "blob_007.nii.gz"
    assert case.images == (study.raw / "imagesTr" / "blob_007_0000.nii.gz",)
    assert [curve.epochs.size for curve in result.curves] == [12] * 5
    assert result.warnings == []


def test_a_named_folder_of_images_that_lacks_cases_is_reported(study: Study, tmp_path: Path) -> None:
    model = add_model(study, "nnUNetTrainer", 0.2)
    images = tmp_path / "images"
    images.mkdir()
    for case in study.cases[1:]:
        (images / f"{case}_0000.nii.gz").touch()
    (result,) = read(study, model, images=images)
    assert [bool(case.images) for case in result.cases] == [False] + [True] * (len(study.cases) - 1)
    expected = f"1 of {len(study.cases)} cases do not have all images in {images} ({study.cases[0]})"
    assert result.warnings == [f"{expected}; their pictures show outlines only"]


def test_collected_and_postprocessed_predictions_know_their_folds_and_model(study: Study) -> None:
    model = add_model(study, "nnUNetTrainer", 0.2)
    collected = model / "crossval_results_folds_0_1_2_3_4"
    for folder in (collected, collected / "postprocessed"):
        write_predictions(study, folder, study.cases, 0.1)
    for name in ("dataset.json", "plans.json"):
        shutil.copy(model / name, collected)
    for result in read(study, collected, collected / "postprocessed"):
        assert result.kind == "cross-validation" and result.model == ModelFolder(model)
        assert [case.fold for case in result.cases] == [str(study.fold_of(case)) for case in study.cases]
        assert len(result.curves) == 5


def test_titles_are_the_parts_in_which_folders_differ(study: Study) -> None:
    models = [add_model(study, trainer, 0.2) for trainer in ("nnUNetTrainer", "nnUNetTrainerFactorizer")]
    name = "ensemble___nnUNetTrainer__nnUNetPlans__3d_fullres___nnUNetTrainerFactorizer__P__3d_fullres___0_1_2_3_4"
    ensemble = models[0].parent / "ensembles" / name
    write_predictions(study, ensemble, study.cases, 0.1)
    for file in ("dataset.json", "plans.json"):
        shutil.copy(models[0] / file, ensemble)
    titles = [result.title for result in read(study, *models)]
    assert titles == ["nnU-Net", "Factorizer"]
    last = read(study, *models, ensemble)[2]
    assert last.kind == "cross-validation"


def test_titles_by_eye() -> None:
    root = Path("/results/Dataset004_Hippocampus")
    two, three = "T__P__2d", "T__P__3d_fullres"
    ensemble = root / "ensembles" / f"ensemble___{two}___{three}___0_1_2_3_4"
    postprocessed = root / three / "crossval_results_folds_0_1_2_3_4" / "postprocessed"
    assert titles_for([root / two, postprocessed, ensemble]) == [
        *("2d", "3d_fullres, postprocessed", "ensemble of 2d and 3d_fullres"),
    ]
    assert titles_for([root / two]) == ["T"]
    assert titles_for([root / "T__P__2d", root / "S__P__3d_fullres"]) == ["T, 2d", "S, 3d_fullres"]
    assert titles_for([Path("/a/out"), Path("/b/out"), Path("/b/in")]) == ["out (/a/out)", "out (/b/out)", "in"]


def test_predictions_take_the_references_given_and_need_them_all(study: Study, tmp_path: Path) -> None:
    out, references = tmp_path / "out", tmp_path / "truth"
    write_predictions(study, out, study.cases[:3], 0.1)
    (out / "dataset.json").write_text(json.dumps(DATASET_JSON))
    shutil.copytree(study.raw / "labelsTr", references)
    missing = problems_of(study, out, references=references)
    assert len(missing) == 7
    assert missing[0] == f"{references}/blob_003.nii.gz: has no prediction in {out}; predict it, or give --partial"
    (result,) = read(study, out, references=references, partial=True)
    assert result.kind == "predictions" and result.names == study.cases[:3]
    assert result.warnings == [f"7 of 10 references have no prediction in {out}"]
    own = problems_of(study, out, references=out)
    assert own[0] == f"{out}/blob_000.nii.gz: is also its own reference; give predictions, or other --references"


def test_references_are_found_by_nnunets_own_summary(study: Study, tmp_path: Path) -> None:
    write_predictions(study, tmp_path / "out", study.cases[:3], 0.1)
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (result,) = read_results([tmp_path / "out"], Sources(environment={}))
    assert result.cases[0].reference == study.raw / "labelsTr" / "blob_000.nii.gz"


def test_all_problems_of_all_folders_are_reported_at_once(study: Study, tmp_path: Path) -> None:
    model = add_model(study, "nnUNetTrainer", 0.2)
    for fold in ("fold_0", "fold_1"):
        (model / fold / "validation" / "summary.json").unlink()
    (model / "fold_1" / "checkpoint_final.pth").touch()  # only its validation is missing
    (model / "fold_2" / "validation" / "blob_007.nii.gz").unlink()
    write_volume(model / "fold_3" / "validation" / "stranger.nii.gz", np.zeros((4, 4, 4), np.uint8))
    (study.raw / "labelsTr" / "blob_009.nii.gz").unlink()
    problems = problems_of(study, model, tmp_path / "nothing", model.parent)
    patterns = (
        r"fold_0: its validation is not finished.*nnUNetv2_train … 0 --c, or give --partial",
        r"fold_1: its validation is not finished.*--val, or give --partial",
        r"fold_2/validation/blob_007.nii.gz: is missing, but .*summary.json has its scores",
        r"fold_3/validation/stranger.nii.gz: is not in .*summary.json",
        r"fold_4/validation/blob_009.nii.gz: no reference, looked for .*labelsTr/blob_009.nii.gz or .*--references",
        r"nothing: does not exist",
        rf"{re.escape(str(model.parent))}: not a folder of nnU-Net.*contains {re.escape(model.name)}: give these",
    )
    for pattern in patterns:
        assert any(re.search(pattern, problem) for problem in problems), pattern
    assert any("stranger.nii.gz: no reference" in problem for problem in problems)


def test_unfinished_folds_can_be_left_out_but_not_silently(study: Study) -> None:
    model = add_model(study, "nnUNetTrainer", 0.2)
    (model / "fold_1" / "validation" / "summary.json").unlink()
    (result,) = read(study, model, partial=True)
    assert result.folds == ("0", "2", "3", "4")
    assert "fold_1: its validation is not finished" in result.warnings[0]
    assert result.warnings[1] == f"{model}: 8 of 10 training cases are validated"


def test_folds_that_were_never_started_are_reported(study: Study) -> None:
    (result,) = read(study, add_model(study, "nnUNetTrainer", 0.2, folds=[0, 3]))
    assert result.warnings == [f"{result.folder}: 4 of 10 training cases are validated"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is not valid JSON"),
        ("[]", "contains a list instead of an object"),
        ('{"a": 1}', "is not a summary.json"),
    ],
)
def test_a_broken_summary_is_a_problem(study: Study, content: str, expected: str) -> None:
    model = add_model(study, "nnUNetTrainer", 0.2)
    (model / "fold_0" / "validation" / "summary.json").write_text(content)
    about_fold = [problem for problem in problems_of(study, model) if "fold_0" in problem]
    assert len(about_fold) == 1, "nothing is said about cases that it cannot list, such as to remove them"
    assert "fold_0/validation/summary.json" in about_fold[0] and expected in about_fold[0]


def test_a_single_fold_and_an_empty_folder_are_refused(study: Study, tmp_path: Path) -> None:
    model = add_model(study, "nnUNetTrainer", 0.2)
    (tmp_path / "empty").mkdir()
    shutil.copy(model / "dataset.json", tmp_path / "empty")
    assert "give the folder above it" in problems_of(study, model / "fold_0")[0]
    assert "no file ends with .nii.gz" in problems_of(study, tmp_path / "empty")[0]


def test_names_are_one_for_each_and_different(study: Study) -> None:
    models = [add_model(study, trainer, 0.2) for trainer in ("nnUNetTrainer", "nnUNetTrainerFactorizer")]
    with pytest.raises(UserError, match="1 name for 2 folders"):
        read_results(models, Sources(environment=study.environment), ["one"])
    with pytest.raises(UserError, match="give different names"):
        read_results(models, Sources(environment=study.environment), ["one", "one"])
    with pytest.raises(UserError, match="given twice"):
        read(study, models[0], models[0])


def test_a_comparison_needs_the_same_cases_and_labels(study: Study) -> None:
    complete, part = (
        add_model(study, "nnUNetTrainer", 0.2),
        add_model(study, "nnUNetTrainerFactorizer", 0.2, folds=[0, 3]),
    )
    results = read(study, complete, part)
    with pytest.raises(UserError) as error:
        check_case_sets(results, partial=False)
    lines = str(error.value).split("\n  ")
    assert lines[1:] == [
        f"{part} has no {case}, which {complete} has" for case in study.cases if study.fold_of(case) not in (0, 3)
    ]
    assert check_case_sets(results, partial=True) == [[0, 1]]
    other = {**DATASET_JSON, "labels": {"background": 0, "all": 1}}
    (part / "dataset.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="have different labels"):
        check_case_sets(read(study, complete, part), partial=True)


def test_results_of_a_kind_without_a_common_case_are_refused_others_stand_side_by_side(
    study: Study, tmp_path: Path
) -> None:
    first = add_model(study, "nnUNetTrainer", 0.2, folds=[0, 1])
    second = add_model(study, "nnUNetTrainerFactorizer", 0.2, folds=[2])
    with pytest.raises(UserError, match="have no case in common"):
        check_case_sets(read(study, first, second), partial=True)
    out = tmp_path / "out"
    write_predictions(study, out, study.cases[8:], 0.1)
    (out / "dataset.json").write_text(json.dumps(DATASET_JSON))
    assert check_case_sets(read(study, add_model(study, "T", 0.2, folds=[0]), out), partial=False) == [[0], [1]]
