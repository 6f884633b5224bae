"""Damaged JSON files of a run: `status` ends with an exit status and a message, whatever they contain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fuzzing import answer, damaged_json, files_below, seed_and_rounds
from running_example import example_settings

from factorizer_nnunet.running.run import run_here
from factorizer_nnunet.running.worker_slots import WorkerSlot


def test_status_answers_damaged_files(tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = example_settings(tmp_path, prediction=None)
    assert run_here(settings, [WorkerSlot("cpu 0")])
    number = settings.dataset.removeprefix("Dataset").split("_")[0]
    assert answer(["status", "-d", number]) == 0
    seed, rounds = seed_and_rounds(5, 80)
    rng = np.random.default_rng(seed)
    files = sorted(path for path in (tmp_path / "nnUNet_results").rglob("*.json"))
    files += sorted(path for path in (tmp_path / "nnUNet_preprocessed").rglob("*.json"))
    for _ in range(rounds):
        victim = files[int(rng.integers(len(files)))]
        content = victim.read_bytes()
        victim.write_bytes(damaged_json(rng, json.loads(content)))
        before = files_below(tmp_path)
        status = answer(["status", "-d", number])
        assert status in (0, 1, 2)
        message = capsys.readouterr().err
        assert status < 2 or victim.name in message or "no run has the ID" in message, f"{victim}: {message}"
        assert files_below(tmp_path).keys() == before.keys()
        victim.write_bytes(content)
