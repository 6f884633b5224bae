"""Runs that train models several times, and runs that tune the postprocessing."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
from running_example import example_settings, paths_of
from test_fake_runs import commands_run, states_of, summary_of

from factorizer_nnunet import cli
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, TRAINER
from factorizer_nnunet.running.estimate import estimate_trainings
from factorizer_nnunet.running.request import read_request
from factorizer_nnunet.running.run import run_here
from factorizer_nnunet.running.steps import build_steps
from factorizer_nnunet.running.summary import summarize
from factorizer_nnunet.running.worker_slots import WorkerSlot

SLOTS = [WorkerSlot("cpu 0"), WorkerSlot("cpu 1")]
MODEL = ModelName(TRAINER, PLANS, "3d_fullres")


def test_repeats_are_trained_counted_shown_and_not_chosen(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once = example_settings(tmp_path, models=(MODEL, ModelName("nnUNetTrainer", PLANS, "3d_fullres")))
    assert run_here(once, SLOTS)
    before = commands_run(once)
    settings = example_settings(tmp_path, models=once.models, repeats=3)
    estimate = estimate_trainings(settings, build_steps(settings), 1)
    assert estimate.known + estimate.unknown == 8, "two more trainings of two folds of two models"
    capsys.readouterr()
    assert run_here(settings, SLOTS)
    new = [command for command in commands_run(settings) if command not in before]
    assert len(new) == 8 and all(command.startswith("nnUNetv2_train") and "_repeat" in command for command in new)
    assert read_request(paths_of(settings).request) == settings
    summary = summary_of(settings)
    assert {model["model"] for model in summary["repeats"]} == {model.folder for model in settings.models}
    assert list(summary["repeats"][0]["dice"]) == [
        f"{TRAINER}{end}__{PLANS}__3d_fullres" for end in ("", "_repeat2", "_repeat3")
    ]
    assert summary["repeats"][0]["spread"] == 0  # the fake trainings are alike
    page = paths_of(settings).summary.with_suffix(".md").read_text()
    assert "## Repeated trainings" in page and "it may be chance" in page
    assert cli.main(["status", "-d", "501"]) == 0
    assert re.search(rf"train\.nnUNetTrainer_repeat3__{PLANS}__3d_fullres\.fold_1 +done", capsys.readouterr().out)


def test_repeats_of_a_cascade_refine_their_own_low_resolution(tmp_path: Path, programs: Path) -> None:
    cascade = ModelName(TRAINER, PLANS, "3d_cascade_fullres")
    settings = example_settings(tmp_path, models=(cascade,), prediction=None, repeats=2)
    trained = [model.folder.replace(TRAINER, "").replace(f"__{PLANS}", "") for model in settings.trained_models]
    assert trained == [f"{end}__3d_{stage}" for end in ("", "_repeat2") for stage in ("lowres", "cascade_fullres")]
    assert run_here(settings, SLOTS)


def test_tuned_rules_take_the_place_of_nnunets_postprocessing(tmp_path: Path, programs: Path) -> None:
    settings = example_settings(tmp_path, models=(MODEL,), postprocessing="isles2022")
    assert run_here(settings, SLOTS)
    assert states_of(settings)["tune_postprocessing"] == "done"
    commands = commands_run(settings)
    tuning = next(command for command in commands if "tune-postprocessing" in command)
    assert "--scheme isles2022" in tuning and "-f 0 1" in tuning
    assert not any("--no-postprocessing" in command for command in commands)
    functions = paths_of(settings).no_postprocessing
    assert any(str(functions) in command for command in commands)
    assert pickle.loads(functions.read_bytes()) == ([], [])
    assert run_here(settings, SLOTS) and commands_run(settings) == commands

    rules = paths_of(settings).model(MODEL).postprocessing_file
    best = summarize(settings)["best"]
    assert (best["rules"], best["dice_after_postprocessing"]) == (str(rules), None)
    rules.write_text(json.dumps({"edited": True}))
    assert run_here(settings, SLOTS)
    again = commands_run(settings)[len(commands) :]
    assert len(commands_run(settings)) == len(commands) + 3, again  # predict, postprocess, scores
    other = example_settings(tmp_path, models=(MODEL,), postprocessing="none")
    assert run_here(other, SLOTS)
    assert sum("tune-postprocessing" in command for command in commands_run(other)) == 2


def test_pairs_and_previous_stages_are_not_postprocessed_by_rules(tmp_path: Path, programs: Path) -> None:
    pair = example_settings(tmp_path, postprocessing="none")
    assert run_here(pair, SLOTS)
    assert states_of(pair)["tune_postprocessing"] == "done"
    assert not any("tune-postprocessing" in command for command in commands_run(pair))
    cascade = ModelName(TRAINER, PLANS, "3d_cascade_fullres")
    prediction = replace(pair.prediction, output=tmp_path / "other")
    settings = example_settings(tmp_path, models=(cascade,), prediction=prediction, name="cascade")
    assert run_here(settings, SLOTS)
    first, last = (command for command in commands_run(settings) if " predict " in command)
    assert "--no-postprocessing" in first and "--no-postprocessing" not in last
