"""What is typed, shown and stored: command lines, worker slots, time limits, progress, the table of steps."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_nnunet import LOG, order
from running_example import CASES, example_settings, paths_of

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, TRAINER
from factorizer_nnunet.running import command_lines, slurm
from factorizer_nnunet.running.execution import STOPPED
from factorizer_nnunet.running.progress import planned_epochs, training_progress
from factorizer_nnunet.running.request import find_requests, read_request, write_request
from factorizer_nnunet.running.run import run_here
from factorizer_nnunet.running.slurm import StepJob, minutes
from factorizer_nnunet.running.slurm_queue import job_prefix, queued, queued_jobs
from factorizer_nnunet.running.status import read_status, status_table
from factorizer_nnunet.running.worker_slots import WorkerSlot, command_environment, plan_worker_slots


def test_models_of_every_combination_are_compared_by_the_stock_command(tmp_path: Path) -> None:
    settings = example_settings(tmp_path)
    command = " ".join(command_lines.find_best(settings))
    assert command.startswith("nnUNetv2_find_best_configuration Dataset501_Fake -c 2d 3d_fullres")
    assert command.endswith(f"-tr {TRAINER} -p {PLANS} -f 0 1 -np 2")


def test_models_across_backbones_are_compared_by_the_function_behind_it(tmp_path: Path) -> None:
    models = (ModelName(TRAINER, PLANS, "2d"), ModelName("nnUNetTrainer", "nnUNetPlans", "2d"))
    python, option, code = command_lines.find_best(example_settings(tmp_path, models=models))
    assert (python, option) == ("python", "-c")
    called = {}
    module = "nnunetv2.evaluation.find_best_configuration"
    stub = argparse.Namespace(find_best_configuration=lambda *args, **options: called.update(args=args, **options))
    before = sys.modules.get(module)
    sys.modules[module] = stub
    try:
        exec(code, {})
    finally:
        sys.modules.pop(module) if before is None else sys.modules.update({module: before})
    assert called["args"][0] == "Dataset501_Fake" and called["folds"] == (0, 1)
    assert called["args"][1] == [
        {"trainer": TRAINER, "plans": PLANS, "configuration": "2d"},
        {"trainer": "nnUNetTrainer", "plans": "nnUNetPlans", "configuration": "2d"},
    ]


@pytest.mark.parametrize(
    ("plans", "expected"),
    [
        (PLANS, "factorizer-nnunet plan -d 501 --gpu-memory-target 0.5 -np 2 --no-preprocess"),
        (f"{PLANS}_swin", "factorizer-nnunet plan -d 501 --variant swin --gpu-memory-target 0.5 -np 2 --no-preprocess"),
        (
            "nnUNetFactorizerTemplatePlans_brats_fast",
            "factorizer-nnunet plan -d 501 --template brats_fast -np 2 --no-preprocess",
        ),
        (
            "nnUNetFactorizerXLPlans",
            "factorizer-nnunet plan -d 501 --size XL --gpu-memory-target 0.5 -np 2 --no-preprocess",
        ),
        ("nnUNetPlans", "nnUNetv2_plan_experiment -d 501 -pl ExperimentPlanner -gpu_memory_target 0.5"),
        ("nnUNetResEncUNetLPlans", "nnUNetv2_plan_experiment -d 501 -pl nnUNetPlannerResEncL -gpu_memory_target 0.5"),
    ],
)
def test_each_plans_have_their_planner(tmp_path: Path, plans: str, expected: str) -> None:
    settings = example_settings(tmp_path, gpu_memory_target_gb=0.5)
    assert " ".join(command_lines.plan(settings, plans)) == expected


def test_several_gpus_for_a_fold_are_one_slot() -> None:
    slots = plan_worker_slots("cuda", ["0", "2", "3", "5", "6"], 2, None)
    assert [slot.variables["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0,2", "3,5"]
    with pytest.raises(UserError, match="4 GPUs for one fold, but there are only 2: 0, 1"):
        plan_worker_slots("cuda", ["0", "1"], 4, None)


def test_folds_on_the_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factorizer_nnunet.running.worker_slots.core_count", lambda: 16)
    slots = plan_worker_slots("cpu", [], 1, None)
    assert len(slots) == 5 and {slot.variables["OMP_NUM_THREADS"] for slot in slots} == {"3"}
    assert plan_worker_slots("cpu", [], 1, 2)[0].variables == {"OMP_NUM_THREADS": "8"}


def test_variables_of_the_user_are_kept(tmp_path: Path) -> None:
    folders = example_settings(tmp_path).folders
    environment = command_environment(
        folders, WorkerSlot("cpu 0"), "cpu", {"nnUNet_n_proc_DA": "7", "nnUNet_raw": "elsewhere"}
    )
    assert environment["nnUNet_n_proc_DA"] == "7" and environment["nnUNet_def_n_proc"] == "2"
    assert environment["nnUNet_raw"] == str(folders.raw)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90:30", 91), ("02:30:00", 150), ("2-12", 3600), ("1-00:00:00", 1440), ("0:0:30", 1)],
)
def test_time_limits_are_those_of_sbatch(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "two hours", "1-", "0", "1:2:3:4"])
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--time"):
        minutes(text)


@pytest.mark.parametrize(
    ("trainer", "epochs"),
    [
        (f"{TRAINER}_20epochs_50iters", 20),
        (TRAINER, 1000),
        ("nnUNetTrainer", 1000),
        ("nnUNetTrainer_5epochs", 5),
        ("nnUNetTrainer_1epoch", 1),
        ("nnUNetTrainer_250epochs_NoMirroring", 250),
    ],
)
def test_epochs_are_read_from_the_trainer_name(trainer: str, epochs: int) -> None:
    assert planned_epochs(trainer) == epochs


def test_progress_is_read_from_the_log(tmp_path: Path) -> None:
    assert training_progress(tmp_path, TRAINER) is None
    (tmp_path / "training_log_1.txt").write_text(LOG + "2026-01-01 00:00:09: Epoch 2 \n")
    progress = training_progress(tmp_path, "nnUNetTrainer_5epochs")
    assert (progress.epochs, progress.total) == (2, 5)
    assert progress.dice == pytest.approx(0.6) and progress.seconds_left == pytest.approx(6.0)
    assert str(progress) == "epoch 2/5  Dice 0.60  6 s left"


def test_the_last_request_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = example_settings(tmp_path, gpu_memory_target_gb=2.5)
    paths_of(settings).run.mkdir(parents=True)
    write_request(settings)
    for name in ("501", settings.dataset):
        (request,) = find_requests(settings.folders.results, name)
        assert read_request(request) == settings
    plain = replace(settings, prediction=None)
    write_request(plain)
    assert read_request(paths_of(plain).request) == plain
    copied = tmp_path / "copied"
    shutil.copytree(settings.folders.results, copied)
    (request,) = find_requests(copied, "501")
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / "elsewhere" / name))
    found = read_request(request).folders
    assert (found.results, found.raw) == (copied, tmp_path / "elsewhere" / "raw")
    assert found.preprocessed == tmp_path / "elsewhere" / "preprocessed"
    assert read_request(paths_of(plain).request).folders == plain.folders, "that of the run that was not copied"
    with pytest.raises(UserError, match="no run has the ID or name 7 in .*; there are runs of Dataset501_Fake"):
        find_requests(settings.folders.results, "7")


def test_status_shows_what_is_done_failed_and_running(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path)
    order(programs, "fail", "nnUNetv2_train", "2d", "1")
    run_here(settings, [WorkerSlot("cpu 0")])
    lines = {line.name: line for line in read_status(settings)}
    failed = lines[f"train.{TRAINER}__{PLANS}__2d.fold_1"]
    assert failed.state == "failed" and "the order was to fail" in failed.detail
    assert lines["find_best_configuration"].state == "waiting" and lines["folds"].state == "done"
    paths, model = paths_of(settings), settings.models[1]
    paths.fold(model, 0).checkpoint().unlink()
    log = paths.log(f"train.{model.folder}.fold_0")
    log.touch()
    with file_lock(paths.lock, "busy"):
        table = status_table(read_status(settings))
    assert f"{log.stem}  running  epoch 2/1000  Dice 0.60" in table
    assert f"of {len(lines)} steps done" in table
    os.utime(log, (1, 1))  # of a run that was killed; the present one has not reached this step
    paths.measurements(log.stem).unlink()
    with file_lock(paths.lock, "busy"):
        assert f"{log.stem}  waiting" in status_table(read_status(settings))


def fake_squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("script", "message"), [("echo down >&2; exit 1", "squeue cannot list"), ("echo '7|PENDING|{}folds'", "")]
)
def test_a_queue_that_does_not_answer_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    settings = example_settings(tmp_path)
    fake_squeue(tmp_path, monkeypatch, script.format(job_prefix(settings)))
    if message:
        assert queued_jobs(settings) == {}
        with pytest.raises(UserError, match=message):
            queued(settings)
    else:
        assert queued(settings) == {"folds": ("7", "PENDING")}


@pytest.mark.parametrize(("state", "asked"), [("RUNNING", [signal.SIGUSR1]), ("COMPLETING", [])])
def test_a_job_that_slurm_is_ending_does_not_ask_to_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, asked: list[int]
) -> None:
    fake_squeue(tmp_path, monkeypatch, f"echo {state}")
    monkeypatch.setattr(slurm, "run_step", lambda *arguments: STOPPED)
    signals: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: signals.append(number))
    try:
        with pytest.raises(RuntimeError, match="fingerprint: stopped by a signal"):
            StepJob(example_settings(tmp_path, prediction=None), "fingerprint")()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert signals == asked


def test_an_added_case_is_not_yet_preprocessed(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path, prediction=None)
    run_here(settings, [WorkerSlot("cpu 0")])
    raw = paths_of(settings).raw
    for folder, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (raw / folder / f"late{ending}").write_bytes((raw / folder / f"{CASES[0]}{ending}").read_bytes())
    lines = {line.name: line for line in read_status(settings)}
    assert lines[f"preprocess.{PLANS}.2d"].detail == "6 of 7 cases"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "images"], "add --output"),
        (["--compare", "nnUNetTrainer"], "invalid --compare nnUNetTrainer: expected TRAINER:PLANS"),
        (["--device", "cuda"], "no GPU found .*: give --device cpu"),
        (["--template", "mine"], "no plans .*nnUNetFactorizerTemplatePlans_mine.json"),
        (["--gpus", "0"], "--gpus is for --device cuda, not cpu"),
        (["--folds-at-a-time", "-1"], "invalid --folds-at-a-time -1: give 1 or more"),
        (["--executor", "slurm", "--time", "soon"], "invalid --time soon: expected MINUTES"),
    ],
)
def test_wrong_options_are_refused(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert cli.main(["run", "-d", "501", "--device", "cpu", *options]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_status_needs_neither_torch_nor_nnunet(tmp_path: Path, programs: Path) -> None:
    run_here(example_settings(tmp_path), [WorkerSlot("cpu 0")])
    code = (
        "import sys; sys.modules['torch'] = None; from factorizer_nnunet import cli; "
        "sys.exit(cli.main(['status', '-d', '501']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["fingerprint", "done"]
