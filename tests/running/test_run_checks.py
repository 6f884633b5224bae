"""What would spoil a run is reported before anything is written, in the user's words."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from running_example import DATASET, TEST_CASES, example_settings, paths_of

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, TRAINER, template_plans_name
from factorizer_nnunet.running.checks import check_after_planning, check_before_planning
from factorizer_nnunet.running.run import run_here
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.worker_slots import WorkerSlot
from factorizer_nnunet.training.variables import check_variables

SLOTS = [WorkerSlot("cpu 0")]


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def second_channel(root: Path) -> None:
    images = root / "nnUNet_raw" / DATASET / "imagesTs"
    (images / f"{TEST_CASES[1]}_0000.nii.gz").rename(images / f"{TEST_CASES[1]}_0001.nii.gz")


def foreign_output(root: Path) -> None:
    (root / "out").mkdir()
    (root / "out" / "thesis.tex").touch()


def predictions_of_others(root: Path) -> None:
    (root / "out").mkdir()
    (root / "out" / f"{TEST_CASES[0]}.nii.gz").touch()


def no_reference(root: Path) -> None:
    (root / "nnUNet_raw" / DATASET / "labelsTs" / f"{TEST_CASES[0]}.nii.gz").unlink()


def no_images(root: Path) -> None:
    for file in (root / "nnUNet_raw" / DATASET / "imagesTs").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            second_channel,
            r"1 of 2 test cases in .*imagesTs have other channels than 0 to 0, which .*json names \(new_1: \[1\]\)",
        ),
        (foreign_output, r"out contains 1 files that are not of this run \(thesis.tex\); choose an empty or new "),
        (predictions_of_others, r"out contains 1 files that are not of this run \(new_0.nii.gz\)"),
        (no_reference, r"1 of 2 test cases have no label in .*labelsTs \(new_0\)"),
        (no_images, r"no test images in .*imagesTs: no file CASE_0000.nii.gz"),
    ],
)
def test_spoilt_test_data(tmp_path: Path, programs: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(tmp_path)
    before = files_below(tmp_path)
    with pytest.raises(UserError, match=message):
        run_here(example_settings(tmp_path), SLOTS)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("nnUNet_factorizer_step", "graph", "set it to one of plain, fused, inlined, graphs"),
        ("nnUNet_factorizer_augmentation", "gpu", "set it to one of auto, device, workers"),
        ("nnUNet_factorizer_kernels", "off", "set it to 0 for plain PyTorch, to 1, or unset it"),
        ("nnUNet_factorizer_num_iters", "2", "Run: unset nnUNet_factorizer_num_iters"),
        ("nnUNet_factorizer_num_shifts", "x", "Run: unset nnUNet_factorizer_num_shifts"),
        ("FACTORIZER_CHECKPOINT_MINUTES", "soon", "set it to minutes"),
    ],
)
def test_variables_that_would_end_every_training(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    before = files_below(tmp_path)
    with pytest.raises(UserError, match=f"{variable} is .*'{value}'.*{message}"):
        run_here(example_settings(tmp_path), SLOTS)
    assert files_below(tmp_path) == before
    with pytest.raises(UserError, match=f"{variable} is .*'{value}'"):
        check_variables("cpu")  # of the trainer and of finetune
    monkeypatch.delenv(variable)
    check_variables("cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": (0, 7)}, "no fold 7: nnU-Net makes 5 folds, counted from 0"),
        ({"models": (ModelName(TRAINER, "nnUNetFactorizerTemplatePlans_mine", "2d"),)}, "can only make .*Plans_demo"),
        ({"models": (ModelName(TRAINER, "myPlans", "2d"),)}, "there are no plans .*myPlans.json"),
        (
            {"models": (ModelName(TRAINER, "nnUNetPlans", "4d"),)},
            "unknown configuration '4d': choose from 2d, 3d_fullres",
        ),
        (
            {"models": (ModelName("nnUNetTrainerNobody", PLANS, "2d"),)},
            "nnU-Net does not find the trainer nnUNetTrainerNobody. Correct",
        ),
        ({"models": (ModelName(f"{TRAINER}_20epo", PLANS, "2d"),)}, "invalid trainer suffix '_20epo'"),
        ({"dataset": "Dataset502_None"}, "no data set Dataset502_None"),
    ],
)
def test_spoilt_settings(tmp_path: Path, programs: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_before_planning(example_settings(tmp_path, **changes))


def test_all_problems_come_at_once(tmp_path: Path, programs: Path) -> None:
    second_channel(tmp_path)
    foreign_output(tmp_path)
    with pytest.raises(UserError, match=r"3 problems:\n- no fold 9.*\n- 1 of 2 test cases.*\n- .*thesis.tex"):
        check_before_planning(example_settings(tmp_path, folds=(9,)))


@pytest.fixture
def planned(tmp_path: Path, programs: Path) -> RunSettings:
    """A run with plans from which no network can be built."""
    settings = example_settings(tmp_path, prediction=None)
    run_here(settings, SLOTS)
    return settings


def test_plans_without_the_configuration(planned: RunSettings) -> None:
    file = paths_of(planned).plans("nnUNetFactorizerPlans")
    content = json.loads(file.read_text())
    del content["configurations"]["2d"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="has no configuration 2d; it has 3d_fullres, 3d_lowres"):
        check_after_planning(planned)


def test_a_template_needs_no_plans(tmp_path: Path, programs: Path) -> None:
    model = ModelName(TRAINER, template_plans_name("demo"), "3d_fullres")
    check_before_planning(example_settings(tmp_path, models=(model,), folds=(0,)))


def test_trainers_that_do_not_fit(planned: RunSettings) -> None:
    with pytest.raises(UserError, match=rf"{TRAINER} cannot train on nnUNetFactorizerPlans: .*json has no"):
        check_after_planning(planned)


def test_a_full_disk_is_reported_before(planned: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tuple(replace(model, trainer="nnUNetTrainer") for model in planned.models)  # takes any plans
    settings = replace(planned, models=trainer)
    check_after_planning(settings)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"no space left: .* has 0.0 GB free, but the run will write at least"):
        check_after_planning(settings)


def test_files_that_nnunet_would_execute_are_refused(planned: RunSettings) -> None:
    paths = planned.paths
    plans = json.loads(paths.plans(PLANS).read_text())
    folder = paths.preprocessed / plans["configurations"]["2d"]["data_identifier"]
    (folder / "case_0.pkl").write_bytes(pickle.dumps(os.getcwd))
    fold = paths.fold(planned.models[1], 1)
    fold.summary.unlink()
    torch.save({"network_weights": {}, "extra": os.getcwd}, fold.checkpoint())
    with pytest.raises(UserError) as error:
        check_after_planning(planned)
    assert f"{folder / 'case_0.pkl'} asks for posix.getcwd" in str(error.value)
    assert "checkpoint_final.pth asks for posix.getcwd" in str(error.value)


def test_test_cases_may_lack_channels_if_all_models_were_trained_for_it(tmp_path: Path, programs: Path) -> None:
    raw = tmp_path / "nnUNet_raw" / DATASET
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**content, "channel_names": {"0": "T1", "1": "T2"}}))
    drops, ordinary = (ModelName(f"{TRAINER}{suffix}", PLANS, "2d") for suffix in ("_2epochs_channeldrop", ""))
    with pytest.raises(UserError, match="2 of 2 test cases in .*imagesTs have other channels than 0 to 1"):
        check_before_planning(example_settings(tmp_path, models=(drops, ordinary), data_check=False))
    check_before_planning(example_settings(tmp_path, models=(drops,), data_check=False))
    (raw / "imagesTs" / "new_0_0000.nii.gz").rename(raw / "imagesTs" / "new_0_0002.nii.gz")
    with pytest.raises(UserError, match=r"1 of 2 test cases .* \(new_0: \[2\]\)"):
        check_before_planning(example_settings(tmp_path, models=(drops,), data_check=False))
