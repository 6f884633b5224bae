"""Prediction and what follows it: folds, mirroring, probabilities, ensembles, postprocessing, moving a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK
import torch
from blobs import TEST_CASES
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from workspace import (
    BLOBS,
    IGNORED,
    IN_ONE_PROCESS,
    ON_CPU,
    PLANS,
    RESUMED_TRAINER,
    TRAINER,
    Workspace,
    assert_close_predictions,
    assert_predicted,
    assert_same_predictions,
    read_labels,
    read_probabilities,
)

from factorizer_nnunet.network import Factorizer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["mirrored", "slices", "single"])
def test_predictions_follow_their_probabilities(folds: Workspace, predictions: dict[str, Path], name: str) -> None:
    folder = predictions[name]
    assert_predicted(folder, folds.unseen, TEST_CASES, {0, 1, 2})
    for case in TEST_CASES:
        probabilities = read_probabilities(folder, case)
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=5e-3)
        np.testing.assert_array_equal(probabilities.argmax(0), read_labels(folder / f"{case}.nii.gz"))


def test_folds_and_mirroring_change_the_probabilities(predictions: dict[str, Path]) -> None:
    """Else the options would be ignored and every comparison of equal predictions would mean little."""
    mirrored, single = (
        read_probabilities(folder, TEST_CASES[0]) for folder in (predictions["mirrored"], predictions["single"])
    )
    assert np.abs(mirrored - single).max() > 1e-3


def test_the_command_predicts_what_the_library_does(
    folds: Workspace, predictions: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in folds.env.items():
        monkeypatch.setenv(name, value)
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folds.model("3d_fullres")), (0,))
    assert isinstance(predictor.network, Factorizer)
    predictor.predict_from_files_sequential(str(folds.unseen), str(tmp_path), save_probabilities=True)
    for case in TEST_CASES:
        here, there = (read_probabilities(folder, case) for folder in (tmp_path, predictions["single"]))
        # Threads differ in the last digits, which nnU-Net's halves, coarse at the corners of patches, may enlarge.
        assert np.mean(np.abs(here - there) > 5e-3) < 1e-3


def test_prediction_from_the_model_folder_needs_no_data_folders(
    folds: Workspace, predictions: dict[str, Path], tmp_path: Path
) -> None:
    folds.run(
        "nnUNetv2_predict_from_modelfolder",
        *("-i", folds.unseen, "-o", tmp_path, "-m", folds.model("3d_fullres"), "-f", 0, 1),
        *(*ON_CPU, "-npp", 1, "-nps", 1, "--save_probabilities"),
        nnUNet_raw=str(tmp_path / "no"),
        nnUNet_preprocessed=str(tmp_path / "no"),
        nnUNet_results=str(tmp_path / "no"),
    )
    assert_same_predictions(predictions["mirrored"], tmp_path, TEST_CASES)


def test_our_command_predicts_the_same_and_fixes_what_a_kill_left(
    folds: Workspace, predictions: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(predictions["mirrored"], tmp_path, dirs_exist_ok=True)
    first, second = TEST_CASES
    (tmp_path / f"{first}.npz").unlink()
    intact = (tmp_path / f"{second}.nii.gz").read_bytes()
    (tmp_path / f"{second}.nii.gz").write_bytes(intact[: len(intact) // 2])
    model = ("-m", folds.model("3d_fullres"), "-f", 0, 1)
    command = ("predict", "-i", folds.unseen, "-o", tmp_path, *model, *ON_CPU, "--save_probabilities")
    done = folds.run("factorizer-nnunet", *command, "-npp", 1, "-nps", 1, nnUNet_results=str(tmp_path / "no"))
    assert "predicted: 2, complete before: 0, failed: 0" in done.stdout
    assert_close_predictions(predictions["mirrored"], tmp_path, TEST_CASES)


def test_an_image_that_is_stored_along_other_axes_than_those_of_the_training_is_a_warning(
    folds: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "turned").mkdir()
    for file in folds.unseen.glob("unseen_0_*"):
        image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(file)), "PIR")
        SimpleITK.WriteImage(image, str(tmp_path / "turned" / file.name))
    where = ("-m", folds.model("3d_fullres"), "-f", "0", "-i", tmp_path / "turned", "-o", tmp_path / "out", *ON_CPU)
    done = folds.run("factorizer-nnunet", "predict", *where, "--disable_tta")
    assert "its axes lead to PIR, those of the training's images to LPS" in done.stdout + done.stderr


def test_cascade_predicts_through_both_stages(planned: Workspace, cascade: SimpleNamespace) -> None:
    for folder in (cascade.lowres, cascade.fullres):
        assert_predicted(folder, planned.unseen, TEST_CASES, {0, 1, 2})


def test_a_model_on_stock_plans_predicts(planned: Workspace, interrupted: SimpleNamespace) -> None:
    names = {"trainer": RESUMED_TRAINER, "plans": "nnUNetPlans"}
    folder = planned.predict("stock", "3d_fullres", (0,), "--disable_tta", *IN_ONE_PROCESS, **names)
    assert_predicted(folder, planned.unseen, TEST_CASES, {0, 1, 2})


def test_regions_become_declared_labels(planned: Workspace, regions: SimpleNamespace) -> None:
    assert_predicted(regions.predicted, planned.unseen, TEST_CASES, {0, 1, 2})


def test_the_ignore_label_is_never_predicted(planned: Workspace, ignored: Path) -> None:
    validated = json.loads((planned.preprocessed / IGNORED / "splits_final.json").read_text())[0]["val"]
    assert_predicted(ignored / "validation", planned.raw / IGNORED / "imagesTr", validated, {0, 1, 2})


def test_ensemble_is_the_mean_of_its_members(folds: Workspace, predictions: dict[str, Path], tmp_path: Path) -> None:
    members = (predictions["mirrored"], predictions["slices"])
    folds.run("nnUNetv2_ensemble", "-i", *members, "-o", tmp_path, "-np", 1)
    assert_predicted(tmp_path, folds.unseen, TEST_CASES, {0, 1, 2})
    for case in TEST_CASES:
        one, other = (read_probabilities(folder, case) for folder in members)
        mean = (one + other) / 2
        highest = np.sort(mean, 0)
        decided = highest[-1] - highest[-2] > 1e-3  # nnU-Net stores and averages in half precision
        assert decided.mean() > 0.9
        np.testing.assert_array_equal(mean.argmax(0)[decided], read_labels(tmp_path / f"{case}.nii.gz")[decided])


def test_best_configuration_compares_both_models_and_their_ensemble(best: SimpleNamespace) -> None:
    names = {f"{TRAINER}__{PLANS}__{configuration}" for configuration in ("3d_fullres", "2d")}
    results = best.information["all_results"]
    assert names < set(results)
    assert len(results) == 3
    assert all(0 <= dice <= 1 for dice in results.values())
    chosen = best.information["best_model_or_ensemble"]
    assert chosen["result_on_crossval_pre_pp"] == max(results.values())


def test_postprocessing_only_takes_away(
    folds: Workspace, best: SimpleNamespace, predictions: dict[str, Path], tmp_path: Path
) -> None:
    chosen = best.information["best_model_or_ensemble"]
    folds.run(
        "nnUNetv2_apply_postprocessing",
        *("-i", predictions["mirrored"], "-o", tmp_path, "-pp_pkl_file", chosen["postprocessing_file"]),
        *("-plans_json", chosen["some_plans_file"], "-np", 1),
    )
    assert_predicted(tmp_path, folds.unseen, TEST_CASES, {0, 1, 2})
    for case in TEST_CASES:
        before, after = (read_labels(folder / f"{case}.nii.gz") for folder in (predictions["mirrored"], tmp_path))
        assert np.all((after == before) | (after == 0))


def test_an_exported_model_predicts_the_same_elsewhere(
    folds: Workspace, predictions: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "model.zip"
    names = ("-d", BLOBS, "-c", "3d_fullres", "-tr", TRAINER, "-p", PLANS, "-f", 0, 1)
    folds.run("nnUNetv2_export_model_to_zip", *names, "-o", file)
    elsewhere = Workspace.below(tmp_path / "elsewhere")
    elsewhere.run("nnUNetv2_install_pretrained_model_from_zip", file)
    out = tmp_path / "out"
    options = (*ON_CPU, *IN_ONE_PROCESS, "--save_probabilities")
    elsewhere.run("nnUNetv2_predict", "-i", folds.unseen, "-o", out, *names, *options)
    assert_same_predictions(predictions["mirrored"], out, TEST_CASES)
