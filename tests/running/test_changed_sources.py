"""What has changed since a step was done is noticed, whatever clocks say; long or handmade work is never replaced."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from running_example import CASES, TEST_CASES, example_settings, paths_of
from test_fake_runs import SLOTS, commands_run, states_of

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.folds import read_folds
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, TRAINER
from factorizer_nnunet.nnunet.provenance import FOLDER
from factorizer_nnunet.running.cascade import CASCADE
from factorizer_nnunet.running.run import run_here
from factorizer_nnunet.running.settings import RunSettings

DAY = 86_400.0


def replace_voxels(file: Path, days: float = 0) -> None:
    """Another image or label of the same size and geometry; its time is moved by some days."""
    before = file.stat()
    image = SimpleITK.ReadImage(str(file))
    voxels = np.roll(SimpleITK.GetArrayFromImage(image), 1, axis=2)
    changed = SimpleITK.GetImageFromArray(voxels)
    changed.CopyInformation(image)
    SimpleITK.WriteImage(changed, str(file))
    if days:
        os.utime(file, (before.st_atime, before.st_mtime + days * DAY))


def new_commands(settings: RunSettings, before: list[str]) -> list[str]:
    left = list(before)
    return [command for command in commands_run(settings) if command not in left or left.remove(command)]


def training_case(settings: RunSettings, part: str) -> str:
    """A case that fold 0 trains or is validated on."""
    return read_folds(paths_of(settings).splits)[0][part][0]


@pytest.mark.parametrize("days", [0.0, -400.0, 400.0])
@pytest.mark.parametrize(("what", "part"), [("image", "train"), ("label", "train"), ("label", "val")])
def test_folds_trained_on_a_replaced_file_are_refused_and_kept(
    tmp_path: Path, programs: Path, what: str, part: str, days: float
) -> None:
    settings = example_settings(tmp_path, folds=(0,), prediction=None)
    run_here(settings, SLOTS)
    case = training_case(settings, part)
    raw = paths_of(settings).raw
    file = raw / "labelsTr" / f"{case}.nii.gz" if what == "label" else raw / "imagesTr" / f"{case}_0000.nii.gz"
    replace_voxels(file, days)
    before, folder = commands_run(settings), paths_of(settings).fold(settings.models[0], 0).path
    with pytest.raises(UserError, match=rf"2 problems[\s\S]*{folder} was trained on what has changed.*{file.name}"):
        run_here(settings, SLOTS)
    assert commands_run(settings) == before
    assert run_here(replace(settings, accept_outdated=True), SLOTS)
    commands = new_commands(settings, before)
    started = [command.split()[0] for command in commands]
    assert "nnUNetv2_train" not in started
    scored = [command for command in commands if command.startswith("nnUNetv2_evaluate_folder")]
    assert len(scored) == (len(settings.models) if (what, part) == ("label", "val") else 0), "by the new label"
    assert {"nnUNetv2_extract_fingerprint", "nnUNetv2_preprocess"} <= set(started)
    assert run_here(settings, SLOTS), "from then on it counts as trained on these"
    assert [path.name for path in paths_of(settings).preprocessed.glob("dataset_fingerprint.json.*")] == [
        "dataset_fingerprint.json.outdated-1"
    ]


def test_a_calibration_is_made_again_when_a_label_was_replaced(tmp_path: Path, programs: Path) -> None:
    plain = example_settings(tmp_path)
    assert plain.prediction is not None
    settings = replace(plain, prediction=replace(plain.prediction, quality=True))
    run_here(settings, SLOTS)
    before = commands_run(settings)
    replace_voxels(paths_of(settings).raw / "labelsTr" / f"{training_case(settings, 'val')}.nii.gz")
    assert run_here(replace(settings, accept_outdated=True), SLOTS)
    assert sum(" calibrate -d" in command for command in new_commands(settings, before)) == len(settings.models)
    assert set(states_of(settings).values()) == {"done"}


def test_a_fold_moved_away_is_trained_again_on_the_changed_data(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path, folds=(0,), prediction=None)
    run_here(settings, SLOTS)
    before = commands_run(settings)
    replace_voxels(paths_of(settings).raw / "labelsTr" / f"{training_case(settings, 'train')}.nii.gz")
    for model in settings.models:
        shutil.move(paths_of(settings).fold(model, 0).path, tmp_path / model.configuration)
    assert run_here(settings, SLOTS)
    started = [command.split()[0] for command in new_commands(settings, before)]
    assert started.count("nnUNetv2_train") == started.count("nnUNetv2_preprocess") == 2
    assert started.count("factorizer-nnunet") == 1, "plans follow the fingerprint"


def test_a_cascade_is_refused_when_the_segmentations_that_it_refines_change(tmp_path: Path, programs: Path) -> None:
    model = ModelName(TRAINER, PLANS, CASCADE)
    settings = example_settings(tmp_path, models=(model,), prediction=None)
    assert run_here(settings, SLOTS) and run_here(settings, SLOTS)
    case = training_case(settings, "train")
    lowres = ModelName(TRAINER, PLANS, "3d_lowres")
    file = paths_of(settings).model(lowres).next_stage(CASCADE) / f"{case}.b2nd"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    message = rf"{CASCADE}/fold_0 was trained on what has changed.*segmentation of {case} \(changed\)"
    with pytest.raises(UserError, match=message):
        run_here(settings, SLOTS)
    assert run_here(replace(settings, accept_outdated=True), SLOTS) and run_here(settings, SLOTS)


def test_segmentations_corrected_by_hand_are_kept_when_a_fold_is_validated_again(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = example_settings(tmp_path, folds=(0,), prediction=None)
    run_here(settings, SLOTS)
    fold = paths_of(settings).fold(settings.models[0], 0)
    case = training_case(settings, "val")
    for text in ("first", "second"):
        corrected = fold.validation / f"{case}.nii.gz"
        corrected.write_text(text)
        os.utime(corrected, (1, 1))
        (fold.validation / f"{case}.npz").unlink()
        assert run_here(settings, SLOTS)
        assert f"{corrected} was changed after it was written" in capsys.readouterr().out
    assert corrected.read_bytes() == b"predicted"
    assert [(fold.validation / f"{case}.nii.gz.edited-{n}").read_text() for n in (1, 2)] == ["first", "second"]


def test_a_segmentation_corrected_after_a_stopped_validation_is_kept(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = example_settings(tmp_path, folds=(0,), prediction=None)
    run_here(settings, SLOTS)
    fold = paths_of(settings).fold(settings.models[0], 0)
    fold.summary.unlink()
    shutil.rmtree(fold.path / FOLDER)
    case = training_case(settings, "val")
    corrected = fold.validation / f"{case}.nii.gz"
    untouched = fold.validation / "other.nii.gz"
    corrected.write_text("corrected")
    untouched.write_bytes(b"predicted")
    shutil.copy(untouched, fold.validation / f"{case}.nii.gz.incomplete-1")  # of a validation stopped before
    assert run_here(settings, SLOTS)
    assert "segmentations of a stopped validation in" in capsys.readouterr().out
    assert corrected.read_bytes() == b"predicted"
    kept = {file.name: file.read_bytes() for file in fold.validation.glob("*.incomplete-*")}
    assert kept == {f"{case}.nii.gz.incomplete-2": b"corrected", "other.nii.gz.incomplete-1": b"predicted"}


def test_clocks_ahead_and_behind_block_nothing(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path)
    assert run_here(settings, SLOTS)
    later = time.time() + 30 * DAY
    for file in (*tmp_path.rglob("summary.json"), *tmp_path.rglob("*.pth"), *tmp_path.rglob("labelsT*/*")):
        os.utime(file, (later, later))
    before = commands_run(settings)
    assert run_here(settings, SLOTS) and commands_run(settings) == before
    shutil.rmtree(paths_of(settings).run / "sources")  # as of an earlier version, or of nnU-Net's own commands
    assert run_here(settings, SLOTS)
    before = commands_run(settings)
    assert run_here(settings, SLOTS) and commands_run(settings) == before


def test_results_of_other_commands_are_used_until_their_sources_change(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path, folds=(0,), prediction=None)
    run_here(settings, SLOTS)
    before = commands_run(settings)
    for folder in list(tmp_path.rglob(FOLDER)):
        shutil.rmtree(folder)
    shutil.rmtree(paths_of(settings).run / "sources")
    assert run_here(settings, SLOTS) and commands_run(settings) == before
    replace_voxels(paths_of(settings).raw / "labelsTr" / f"{training_case(settings, 'train')}.nii.gz", days=-400)
    with pytest.raises(UserError, match="was trained on what has changed"):
        run_here(settings, SLOTS)


@pytest.mark.parametrize("days", [0.0, -400.0])
def test_a_replaced_test_image_is_predicted_again_and_nothing_is_lost(
    tmp_path: Path, programs: Path, days: float
) -> None:
    settings = example_settings(tmp_path)
    run_here(settings, SLOTS)
    out = tmp_path / "out"
    (out / f"{TEST_CASES[1]}.nii.gz").write_text("corrected by hand")
    assert run_here(settings, SLOTS)
    assert (out / f"{TEST_CASES[1]}.nii.gz").read_text() == "corrected by hand"
    replace_voxels(paths_of(settings).raw / "imagesTs" / f"{TEST_CASES[0]}_0000.nii.gz", days)
    before = commands_run(settings)
    assert run_here(settings, SLOTS)
    predicted = [command for command in new_commands(settings, before) if " predict " in command]
    assert len(predicted) == 1 and "--ensemble-with" in predicted[0]  # both models in one pass
    assert (tmp_path / "out.outdated-1" / f"{TEST_CASES[1]}.nii.gz").read_text() == "corrected by hand"
    assert (out / f"{TEST_CASES[1]}.nii.gz").read_bytes().startswith(b"labels")
    kept = sorted(path.name for path in paths_of(settings).run.rglob("*.nii.gz.outdated-1"))
    assert kept == [f"{TEST_CASES[0]}.nii.gz.outdated-1"]


def test_edited_plans_are_refused_when_the_fingerprint_changes(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path, folds=(0,), prediction=None)
    run_here(settings, SLOTS)
    plans = paths_of(settings).plans(settings.models[0].plans)
    content = json.loads(plans.read_text())
    content["note"] = "edited"
    plans.write_text(json.dumps(content))
    for case in CASES:
        replace_voxels(paths_of(settings).raw / "labelsTr" / f"{case}.nii.gz")
    for model in settings.models:
        shutil.move(paths_of(settings).fold(model, 0).path, tmp_path / model.configuration)
    assert not run_here(settings, SLOTS)
    assert states_of(settings)["plan.nnUNetFactorizerPlans"] == "failed"
    assert json.loads(plans.read_text()) == content
    assert run_here(replace(settings, accept_outdated=True), SLOTS)
    assert json.loads(plans.read_text()) == content
