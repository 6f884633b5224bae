"""Runs with names over one data set: state, summaries and results stay apart, and only one is in progress at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_nnunet import order
from running_example import DATASET, example_settings, paths_of
from test_fake_runs import commands_run, states_of

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.running.local import OWNER_VARIABLE, end_left_over, owner
from factorizer_nnunet.running.request import find_requests, read_request, write_request
from factorizer_nnunet.running.run import run_here
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.slurm_queue import job_prefix, queued, refuse_queued
from factorizer_nnunet.running.status import read_status
from factorizer_nnunet.running.worker_slots import WorkerSlot

SLOTS = [WorkerSlot("cpu 0")]


def begin(settings: RunSettings) -> None:
    """Leave what a run leaves that was interrupted before its first step."""
    paths_of(settings).run.mkdir(parents=True)
    write_request(settings)


def test_runs_with_names_do_not_touch_each_other(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = example_settings(tmp_path)
    assert run_here(first, SLOTS)
    prediction = replace(first.prediction, output=tmp_path / "small")
    small = example_settings(tmp_path, models=first.models[:1], prediction=prediction, name="small")
    before = commands_run(first)
    assert run_here(small, SLOTS)
    assert sorted(command.split()[0] for command in commands_run(small)) == [
        "factorizer-nnunet",
        "nnUNetv2_apply_postprocessing",
        "nnUNetv2_evaluate_folder",
        "nnUNetv2_find_best_configuration",
    ], "data and trained folds are shared, the choice and its predictions are not"
    assert run_here(first, SLOTS) and run_here(small, SLOTS)
    assert commands_run(first) == before, "another run's choice replaced nnU-Net's file, not that of this run"
    assert set(states_of(first).values()) == set(states_of(small).values()) == {"done"}
    page = paths_of(small).summary.with_suffix(".md").read_text()
    assert page.startswith(f"# Cross-validation of {DATASET}, run small\n")
    capsys.readouterr()
    assert cli.main(["status", "-d", "501"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("run without a name:\nfingerprint") < shown.index("\n\nrun small:\nfingerprint")
    assert cli.main(["status", "-d", "501", "--name", "small"]) == 0
    assert "3d_fullres" not in capsys.readouterr().out


def test_a_run_of_an_earlier_version_stays_done_when_another_one_chooses(tmp_path: Path, programs: Path) -> None:
    old = example_settings(tmp_path)
    run_here(old, SLOTS)
    paths_of(old).best_configuration.unlink()  # which earlier versions did not write
    request = json.loads(paths_of(old).request.read_text())
    del request["name"]
    paths_of(old).request.write_text(json.dumps(request))
    before = commands_run(old)
    assert run_here(example_settings(tmp_path, models=old.models[1:], prediction=None, name="other"), SLOTS)
    assert run_here(read_request(paths_of(old).request), SLOTS)
    assert commands_run(old) == before


def test_an_interrupted_run_with_a_name_resumes_under_it(tmp_path: Path, programs: Path) -> None:
    named = example_settings(tmp_path, prediction=None, name="große Felder 2")
    failing = order(programs, "fail", "nnUNetv2_train", "2d", "1")
    assert not run_here(named, SLOTS)
    failing.unlink()
    (request,) = find_requests(named.folders.results, DATASET, named.name)
    assert read_request(request) == named
    assert run_here(read_request(request), SLOTS)
    assert not paths_of(replace(named, name=None)).request.exists()


def test_runs_of_one_data_set_take_turns(tmp_path: Path, programs: Path) -> None:
    running, mine = (example_settings(tmp_path, prediction=None, name=name) for name in ("other", "mine"))
    step = f"train.{running.models[0].folder}.fold_0"
    for settings in (running, mine):  # both began this step, but only one of them is in progress
        begin(settings)
        paths_of(settings).log(step).parent.mkdir()
        paths_of(settings).log(step).touch()
    paths_of(running).unnamed.run.mkdir()
    with file_lock(paths_of(running).unnamed.lock, "busy"), file_lock(paths_of(running).lock, "busy"):
        with pytest.raises(UserError, match="another run over Dataset501_Fake is in progress"):
            run_here(mine, SLOTS)
        states = [{line.name: line.state for line in read_status(one)}[step] for one in (running, mine)]
    assert states == ["running", "waiting"]


@pytest.mark.parametrize("command", ["run", "status"])
def test_names_that_lead_elsewhere_are_refused(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    device = ["--device", "cpu"] if command == "run" else []
    for name in ("", ".", "..", "a/b", "../up", "a\\b", "a\nb", "x" * 300):
        assert cli.main([command, "-d", "501", "--name", name, *device]) == 2
        assert "error: invalid --name" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_status_names_the_runs_that_exist(tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(example_settings(tmp_path, prediction=None, name="a"))
    assert cli.main(["status", "-d", "501", "--name", "b"]) == 2
    message = capsys.readouterr().err
    assert "no run has the ID or name 501 and --name b" in message and f"runs of {DATASET} --name a" in message


def test_a_damaged_run_does_not_hide_the_others(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        begin(example_settings(tmp_path, prediction=None, name=name))
    damaged = paths_of(example_settings(tmp_path, name="a")).request
    damaged.write_text('{"dataset": 3}')
    capsys.readouterr()
    assert cli.main(["status", "-d", "501"]) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith("run a:\ncannot be shown\n\nrun b:\nfingerprint") and str(damaged) in shown.err


def test_jobs_of_another_run_are_neither_taken_for_own_ones_nor_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, named = example_settings(tmp_path), example_settings(tmp_path, name="x-y")
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\necho '7|PENDING|{job_prefix(named)}folds'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert queued(named) == {"folds": ("7", "PENDING")}
    for other in (plain, replace(named, name="x")):
        with pytest.raises(UserError, match="1 job of another run over Dataset501_Fake in SLURM's queue"):
            queued(other)
        with pytest.raises(UserError, match="1 job over Dataset501_Fake in SLURM's queue"):
            refuse_queued(other)


def test_processes_that_a_killed_run_left_are_found_by_a_run_of_another_name(tmp_path: Path) -> None:
    killed, following = (paths_of(example_settings(tmp_path, name=name)) for name in ("killed", None))
    environment = {**os.environ, OWNER_VARIABLE: owner(killed)}
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    while not (Path("/proc") / str(left.pid) / "environ").read_bytes():
        time.sleep(0.01)
    assert end_left_over(following) == 1
    assert left.wait(10) == -9
