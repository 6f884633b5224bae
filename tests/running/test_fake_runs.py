"""Complete runs over fake programs: all is done, nothing twice, a failure stops little, halves are made again."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_nnunet import order
from running_example import CASES, TEST_CASES, example_settings, paths_of

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_LATEST, PREDICTION_FILE
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, TRAINER
from factorizer_nnunet.running import execution, steps
from factorizer_nnunet.running.cascade import CASCADE, previous_stage
from factorizer_nnunet.running.local import OWNER_VARIABLE, end_left_over
from factorizer_nnunet.running.measurements import Attempt, read_attempts
from factorizer_nnunet.running.paths import RunPaths
from factorizer_nnunet.running.run import run_here
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.steps import build_steps
from factorizer_nnunet.running.worker_slots import WorkerSlot

SLOTS = [WorkerSlot("cpu 0"), WorkerSlot("cpu 1")]


def summary_of(settings: RunSettings) -> dict:
    return json.loads(paths_of(settings).summary.with_suffix(".json").read_text())


def states_of(settings: RunSettings) -> dict[str, str]:
    return {step["name"]: step["state"] for step in summary_of(settings)["steps"]}


def commands_run(settings: RunSettings) -> list[str]:
    """The programs that were started, from the logs."""
    logs = sorted((paths_of(settings).run / "logs").glob("*.log"))
    return [line[2:] for log in logs for line in log.read_text().splitlines() if line.startswith("$ ")]


def test_quality_is_calibrated_predicted_and_copied_next_to_the_final_segmentations(
    tmp_path: Path, programs: Path
) -> None:
    plain = example_settings(tmp_path)
    assert run_here(plain, SLOTS) and "calibrate" not in states_of(plain)
    assert plain.prediction is not None
    settings = replace(plain, prediction=replace(plain.prediction, quality=True))
    assert run_here(settings, SLOTS)
    assert states_of(settings)["calibrate"] == states_of(settings)["quality"] == "done"
    before = len(commands_run(settings))
    assert {f"quality.{ending}" for ending in ("csv", "json", "html")} <= {p.name for p in (tmp_path / "out").iterdir()}
    calibrations = [line for line in commands_run(settings) if " calibrate -d" in line]
    assert len(calibrations) == 2 and all("-f 0 1" in line for line in calibrations)
    assert run_here(settings, SLOTS) and len(commands_run(settings)) == before, "nothing is done twice"
    without = replace(settings, prediction=replace(settings.prediction, mirroring=False))
    assert run_here(without, SLOTS)
    assert sum(" calibrate -d" in line and "--disable_tta" in line for line in commands_run(without)) == 2


def test_a_run_ends_with_predictions_scores_and_a_summary(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path, folds=(0, 1, 2, 3, 4))
    assert run_here(settings, SLOTS)
    assert set(states_of(settings).values()) == {"done"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"{case}.nii.gz" for case in TEST_CASES),
        *("summary.json", "dataset.json", "plans.json"),
    }
    assert (tmp_path / "out" / "plans.json").read_bytes() == paths_of(settings).plans(PLANS).read_bytes()
    summary = summary_of(settings)
    assert summary["models"][0]["folds"]["3"] == pytest.approx({"core": 0.53, "whole": 0.73, "mean": 0.63})
    assert summary["best"]["gain_of_ensemble"] == pytest.approx(0.8 - 0.71)
    assert summary["test"]["dice"]["mean"] == 0.75
    page = paths_of(settings).summary.with_suffix(".md").read_text()
    assert f"{len(summary['steps'])} of {len(summary['steps'])} steps are done" in page
    assert f"nnUNetv2_train 501 2d 4 -tr {TRAINER} -p {PLANS} -device cpu --npz\n" in page
    assert "factorizer-nnunet predict -d Dataset501_Fake" in page


def test_run_again_it_does_nothing(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path)
    run_here(settings, SLOTS)
    before = commands_run(settings)
    assert run_here(settings, SLOTS)
    assert commands_run(settings) == before


def test_a_failed_fold_stops_only_what_needs_it_and_the_summary_says_why(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path)
    failing = order(programs, "fail", "nnUNetv2_train", "2d", "1")
    assert not run_here(settings, SLOTS)
    states = states_of(settings)
    fold = f"train.{TRAINER}__{PLANS}__2d.fold_1"
    assert states.pop(fold) == "failed"
    assert {name for name, state in states.items() if state != "done"} == {
        *("find_best_configuration", "predict", "postprocess", "scores")
    }
    page = paths_of(settings).summary.with_suffix(".md").read_text()
    assert f"`{fold}`: nnUNetv2_train ended with status 1: RuntimeError: the order was to fail" in page
    failing.unlink()
    before = commands_run(settings)
    assert run_here(settings, SLOTS)
    again = [command for command in commands_run(settings) if command.startswith("nnUNetv2_train")]
    assert len(again) == len([command for command in before if command.startswith("nnUNetv2_train")]) + 1


@pytest.mark.parametrize(
    "words",
    [
        ("nnUNetv2_extract_fingerprint",),
        ("nnUNetv2_preprocess", "2d"),
        ("nnUNetv2_train", "3d_fullres", "0"),
        ("nnUNetv2_find_best_configuration",),
        ("nnUNetv2_apply_postprocessing",),
        ("nnUNetv2_evaluate_folder",),
    ],
)
def test_an_incomplete_result_is_made_again(tmp_path: Path, programs: Path, words: tuple[str, ...]) -> None:
    settings = example_settings(tmp_path, folds=(0,))
    halving = order(programs, "half", *words)
    assert not run_here(settings, SLOTS)
    assert not (tmp_path / "out").exists() or words == ("nnUNetv2_evaluate_folder",)
    halving.unlink()
    assert run_here(settings, SLOTS)


def test_a_fold_without_final_checkpoint_is_continued_and_one_without_probabilities_validated(
    tmp_path: Path, programs: Path
) -> None:
    settings = example_settings(tmp_path, prediction=None)
    run_here(settings, SLOTS)
    paths, model = paths_of(settings), settings.models[0]
    fold = paths.fold(model, 0)
    fold.checkpoint().rename(fold.checkpoint(CHECKPOINT_LATEST))
    next(paths.fold(model, 1).validation.glob("*.npz")).unlink()
    paths.best_configuration.unlink()
    before = set(commands_run(settings))
    assert run_here(settings, SLOTS)
    new = sorted(command.rsplit(" ", 1)[1] for command in set(commands_run(settings)) - before)
    assert new == ["--c", "--val"]


def test_labels_that_were_copied_in_part_are_copied_again(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path, prediction=None)
    run_here(settings, SLOTS)
    copy = paths_of(settings).labels / f"{CASES[2]}.nii.gz"
    complete = copy.read_bytes()
    copy.write_bytes(complete[:-10])
    assert run_here(settings, SLOTS)
    assert copy.read_bytes() == complete


def test_predictions_of_retrained_models_are_made_again(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path)
    run_here(settings, SLOTS)
    before = (tmp_path / "out" / f"{TEST_CASES[0]}.nii.gz").stat().st_mtime_ns
    paths_of(settings).fold(settings.models[0], 1).checkpoint().unlink()
    time.sleep(0.05)
    assert run_here(settings, SLOTS)
    assert (tmp_path / "out" / f"{TEST_CASES[0]}.nii.gz").stat().st_mtime_ns > before


def test_predictions_with_another_mirroring_are_made_again(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path)
    run_here(settings, SLOTS)
    before = len(commands_run(settings))
    plain = replace(settings, prediction=replace(settings.prediction, mirroring=False))
    assert run_here(plain, SLOTS)
    again = [command for command in commands_run(settings) if "--disable_tta" in command]
    assert len(again) == 1  # both models together
    assert len(commands_run(settings)) == before + 3  # and postprocessing, scores


def test_predictions_merged_by_an_earlier_version_are_made_again(tmp_path: Path, programs: Path) -> None:
    """From files of probabilities, without a record of the models."""
    settings = example_settings(tmp_path)
    run_here(settings, SLOTS)
    (folder,) = paths_of(settings).run.glob("predictions/*/ensemble")
    (folder / PREDICTION_FILE).unlink()
    assert run_here(settings, SLOTS)
    assert (folder.parent / "ensemble.outdated-1").is_dir() and (folder / PREDICTION_FILE).is_file()


def test_a_cascade_waits_for_all_folds_of_its_low_resolution(tmp_path: Path, programs: Path) -> None:
    cascade = ModelName(TRAINER, PLANS, CASCADE)
    settings = example_settings(tmp_path, models=(cascade,))
    steps = {step.name: step for step in build_steps(settings)}
    lowres = {f"train.{previous_stage(cascade).folder}.fold_{fold}" for fold in range(5)}
    assert lowres <= set(steps[f"train.{cascade.folder}.fold_1"].after)
    assert run_here(settings, SLOTS)
    predictions = [command for command in commands_run(settings) if command.startswith("factorizer-nnunet predict")]
    assert "3d_lowres" in predictions[0] and "-prev_stage_predictions" in predictions[1]


def test_a_pair_with_a_cascade_needs_its_low_resolution_first(tmp_path: Path, programs: Path) -> None:
    cascade, slices = ModelName(TRAINER, PLANS, CASCADE), ModelName(TRAINER, PLANS, "2d")
    settings = example_settings(tmp_path, models=(slices, cascade))
    assert run_here(settings, SLOTS)
    lowres, pair = (line for line in commands_run(settings) if line.startswith("factorizer-nnunet predict"))
    assert "3d_lowres" in lowres and "--ensemble-with" not in lowres
    assert "--ensemble-with" in pair and f"-prev_stage_predictions {lowres.split(' -o ')[1].split()[0]}" in pair


def test_every_step_comes_after_those_it_needs(tmp_path: Path) -> None:
    settings = example_settings(tmp_path)
    (settings.folders.preprocessed / settings.dataset).mkdir(parents=True)
    known: set[str] = set()
    for step in build_steps(settings):
        assert known.issuperset(step.after) and step.name not in known
        known.add(step.name)


def test_a_second_run_over_the_data_set_is_refused(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path)
    lock = paths_of(settings).lock
    lock.parent.mkdir(parents=True)
    with file_lock(lock, "busy"), pytest.raises(UserError, match="another run over Dataset501_Fake is in progress"):
        run_here(settings, SLOTS)


def test_commands_of_a_killed_run_are_ended_first(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path, prediction=None)
    environment = {**os.environ, OWNER_VARIABLE: str(paths_of(settings).run)}
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    while not (Path("/proc") / str(left.pid) / "environ").read_bytes():
        time.sleep(0.01)
    run_here(settings, SLOTS)
    assert left.wait(10) == -9


def test_costs_are_measured_over_all_attempts(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path, prediction=None)
    order(programs, "fail", "nnUNetv2_extract_fingerprint")
    run_here(settings, SLOTS)
    run_here(settings, SLOTS)
    step = summary_of(settings)["steps"][0]
    assert step["attempts"] == 2 and step["memory_gb"] > 0
    first, second = read_attempts(paths_of(settings).measurements("fingerprint"))
    assert first.error and second.error and min(first.seconds, second.seconds) > 0


def test_a_step_that_breaks_within_the_runner_is_one_that_failed(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = example_settings(tmp_path)
    options = steps._resumed_training

    def broken(paths: RunPaths, model: ModelName, fold: int) -> tuple[str, ...]:
        if (model, fold) == (settings.models[0], 1):
            raise IndexError("as a mistake of ours would")
        return options(paths, model, fold)

    monkeypatch.setattr(steps, "_resumed_training", broken)
    assert not run_here(settings, SLOTS)
    trained = {step["name"]: step for step in summary_of(settings)["steps"] if step["name"].startswith("train.")}
    failed = trained.pop(f"train.{TRAINER}__{PLANS}__2d.fold_1")
    assert failed["why"] == "IndexError: as a mistake of ours would"
    assert {step["state"] for step in trained.values()} == {"done"}


def test_a_full_disk_stops_the_run_which_resumes_when_there_is_space(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, attempt: Attempt) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    settings = example_settings(tmp_path)
    filling = order(programs, "full", "nnUNetv2_train", "2d", "0")
    with monkeypatch.context() as there:
        there.setattr(execution, "add_attempt", full)
        assert not run_here(settings, SLOTS[:1])
    assert len([command for command in commands_run(settings) if command.startswith("nnUNetv2_train")]) == 1
    filling.unlink()
    assert run_here(settings, SLOTS)


@pytest.mark.parametrize(("what", "signals"), [("wait", 1), ("stay", 2)])
def test_an_interrupted_run_ends_its_commands(tmp_path: Path, programs: Path, what: str, signals: int) -> None:
    """One signal ends commands that obey it; a second one ends all others."""
    settings = example_settings(tmp_path, prediction=None)
    waiting = order(programs, what, "nnUNetv2_train", "2d", "0")
    log = paths_of(settings).log(f"train.{settings.models[0].folder}.fold_0")

    def interrupt() -> None:
        while not log.exists() or "\nwaiting\n" not in log.read_text():
            time.sleep(0.02)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_here(settings, SLOTS)
    thread.join()
    assert end_left_over(paths_of(settings)) == 0
    waiting.unlink()
    assert run_here(settings, SLOTS)
    measured = read_attempts(paths_of(settings).measurements(f"train.{settings.models[0].folder}.fold_0"))
    assert [attempt.error for attempt in measured] == [None, None], "its time counts, but it is not a failure"
