"""Names and files of models in nnUNet_results."""

from __future__ import annotations

from pathlib import Path

import pytest

from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_BEST, CHECKPOINT_FINAL, CHECKPOINT_LATEST, ModelFolder
from factorizer_nnunet.nnunet.model_name import (
    ModelName,
    cross_validation_folder,
    is_cross_validation,
    is_plans_name,
    parse_ensemble,
)

MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def test_a_model_name_is_parsed_and_formatted() -> None:
    name = ModelName("nnUNetTrainer", "nnUNetPlans", "3d_fullres")
    assert ModelName.parse(MODEL) == name
    assert name.folder == MODEL


@pytest.mark.parametrize(
    "folder", ["", "fold_0", "a__b", "a____b", "a__b__c__d", f"ensemble___{MODEL}___{MODEL}___0_1"]
)
def test_other_names_are_no_model_names(folder: str) -> None:
    assert ModelName.parse(folder) is None


def test_ensembles_name_their_members() -> None:
    other = "nnUNetTrainer__nnUNetPlans__2d"
    assert parse_ensemble(f"ensemble___{MODEL}___{other}___0_1_2_3_4") == (MODEL, other)
    assert parse_ensemble(MODEL) is None


def test_folders_of_cross_validated_predictions() -> None:
    assert cross_validation_folder((0, 2)) == "crossval_results_folds_0_2"
    assert is_cross_validation("crossval_results_folds_0_2") and is_cross_validation("ensemble___a___b___0")
    assert not is_cross_validation(MODEL)


@pytest.mark.parametrize(
    ("name", "valid"), [("nnUNetPlans_fast", True), ("a__b", False), ("_a", False), ("a/b", False)]
)
def test_plans_names_leave_the_folder_name_readable(name: str, valid: bool) -> None:
    assert is_plans_name(name) is valid


def test_folds_and_checkpoints_of_a_model(tmp_path: Path) -> None:
    model = ModelFolder(tmp_path / MODEL)
    assert model.name == ModelName.parse(MODEL) and model.folds() == []
    for fold in ("1", "0", "all"):
        model.fold(fold).path.mkdir(parents=True)
    (model.path / "fold_file").touch()
    model.fold(1).checkpoint().touch()
    model.fold("all").checkpoint(CHECKPOINT_BEST).touch()
    assert [fold.name for fold in model.folds()] == ["0", "1", "all"]
    assert [fold.name for fold in model.folds(CHECKPOINT_FINAL)] == ["1"]
    assert model.fold(0).last_checkpoint() is None
    model.fold("all").checkpoint(CHECKPOINT_LATEST).touch()
    assert model.fold("all").last_checkpoint() == model.path / "fold_all" / CHECKPOINT_LATEST
