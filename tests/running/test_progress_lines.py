"""What a run shows: steps and an estimate first, then a line for each running step, on a terminal and in a log file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from fake_nnunet import order
from running_example import example_settings, paths_of

from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, TRAINER
from factorizer_nnunet.running import display, local
from factorizer_nnunet.running.estimate import estimate_trainings
from factorizer_nnunet.running.progress import short_name
from factorizer_nnunet.running.run import run_here
from factorizer_nnunet.running.settings import RunSettings
from factorizer_nnunet.running.steps import build_steps
from factorizer_nnunet.running.worker_slots import WorkerSlot

SLOTS = [WorkerSlot("cpu 0"), WorkerSlot("cpu 1")]
LINE = "fold {}  epoch 2/1000  Dice 0.60  33 min left"
UNKNOWN = "time of the trainings: not known before their first epoch, since none was timed on this machine"


@pytest.fixture
def slow(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings that take a moment, and a run that looks at them all the time."""
    order(programs, "slow", "nnUNetv2_train")
    monkeypatch.setattr(local, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(display, "LINE_SECONDS", 0.3)


def two_folds(root: Path, **changes: object) -> RunSettings:
    return example_settings(root, models=(ModelName(TRAINER, PLANS, "2d"),), prediction=None, **changes)


@contextlib.contextmanager
def terminal(columns: int = 100) -> Iterator[tuple[object, list[str]]]:
    """A stream to a terminal, and what is written to it, complete after the block."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    shown: list[str] = []
    ended = threading.Event()

    def read() -> None:  # not up to an end of file: helpers of multiprocessing keep the terminal open
        while select.select([master], [], [], 0.05)[0] or not ended.is_set():
            if select.select([master], [], [], 0)[0]:
                shown.append(os.read(master, 4096).decode(errors="replace"))

    reader = threading.Thread(target=read)
    reader.start()
    with open(slave, "w", closefd=False) as stream:
        yield stream, shown
    ended.set()
    reader.join()
    os.close(slave)
    os.close(master)


def test_a_terminal_has_a_line_for_each_running_step(
    tmp_path: Path, slow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with terminal() as (stream, shown), monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        assert run_here(two_folds(tmp_path), SLOTS)
    text = "".join(shown)
    rows = [row.strip() for row in re.split(r"[\r\n]|\x1b\[A", text)]
    assert {LINE.format(0), LINE.format(1)} <= set(rows) and any(row.startswith("steps:") for row in rows)
    assert re.search(r"\x1b\[[0-9;]*m", text) is None, "it has no colours"


def test_a_log_file_has_the_same_lines_and_no_bar(tmp_path: Path, slow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", log := StringIO())
        patch.setattr(sys, "stderr", errors := StringIO())
        assert run_here(two_folds(tmp_path), SLOTS)
    lines = log.getvalue().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("7 steps: fingerprint, "))
    assert lines[first + 1] == UNKNOWN and "time of 2 trainings: about 33 min, plus validations" in lines
    assert LINE.format(0) in lines and LINE.format(1) in lines
    assert "\r" not in log.getvalue() and errors.getvalue() == ""


def test_lines_fit_the_terminal_and_a_log_file_has_them_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    with terminal(20) as (stream, shown), monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        bars = display.Display(3)
        bars.show([LINE.format(0), "folds  starting"])
        bars.show(["folds  starting"])
        bars.close()
        patch.setattr(sys, "stdout", log := StringIO())
        patch.setattr(display, "LINE_SECONDS", 0)
        display.Display(3).show([LINE.format(0)])
    assert log.getvalue() == f"{LINE.format(0)}\n", "a log file has its lines, whatever the terminal has"
    text = "".join(shown)
    assert "fold 0  epoch 2/100" in text and "epoch 2/1000" not in text


def estimate(settings: RunSettings, slots: int = 1) -> str:
    return str(estimate_trainings(settings, build_steps(settings), slots))


def test_the_estimate_is_of_epochs_timed_on_this_machine(tmp_path: Path, programs: Path) -> None:
    two = two_folds(tmp_path)
    run_here(replace(two, folds=(0,)), SLOTS)
    four = replace(two, folds=(0, 1, 2, 3))
    assert estimate(two) == "time of 1 training: about 33 min, plus validations"
    assert estimate(four) == "time of 3 trainings: about 100 min, plus validations"
    assert estimate(four, slots=2) == "time of 3 trainings: about 67 min, plus validations"
    short = replace(two, models=(ModelName(f"{TRAINER}_90epochs", PLANS, "2d"),))
    assert estimate(short) == "time of 2 trainings: about 6 min, plus validations"
    longer = replace(two, models=(*two.models, ModelName(TRAINER, PLANS, "3d_fullres")))
    assert estimate(longer) == (
        "time of 1 training: about 33 min, plus validations; of 2 more, not known before their first epoch"
    )
    for other in (f"{TRAINER}_90epochs_50iters", "nnUNetTrainer"):
        assert estimate(replace(two, models=(ModelName(other, PLANS, "2d"),))) == UNKNOWN
    assert estimate(replace(two, folds=(0,))) == "all folds are trained"
    checkpoint = paths_of(two).fold(two.models[0], 0).checkpoint()
    complete = checkpoint.read_bytes()
    checkpoint.write_bytes(complete[: len(complete) // 2])
    assert estimate(replace(two, folds=(0,))) != "all folds are trained"
    checkpoint.write_bytes(complete)
    noted = paths_of(two).fold(two.models[0], 0).path / "debug.json"
    content = json.loads(noted.read_text())
    for change in ({"hostname": "another"}, {"device": "cuda:0"}, {"hostname": None}):
        noted.write_text(json.dumps({**content, **change}))
        assert estimate(two) == UNKNOWN


def test_a_time_in_the_trainers_name_is_its_estimate(tmp_path: Path, programs: Path) -> None:
    timed = two_folds(tmp_path)
    timed = replace(timed, models=(ModelName(f"{TRAINER}_6h", PLANS, "2d"),))
    assert estimate(timed, slots=2) == "time of 2 trainings: about 6 h, plus validations"


def test_names_are_as_long_as_the_run_needs(tmp_path: Path) -> None:
    one, two = two_folds(tmp_path), example_settings(tmp_path)
    same = replace(two, models=tuple(ModelName(trainer, PLANS, "2d") for trainer in (TRAINER, "nnUNetTrainer")))
    names = [
        [short_name(step, settings) for step in build_steps(settings) if step.trains] for settings in (one, two, same)
    ]
    assert names[0] == ["fold 0", "fold 1"]
    assert names[1] == ["2d fold 0", "2d fold 1", "3d_fullres fold 0", "3d_fullres fold 1"]
    assert names[2][2:] == [f"nnUNetTrainer__{PLANS}__2d fold 0", f"nnUNetTrainer__{PLANS}__2d fold 1"]
