"""The benchmark of trainings with a time: what its page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import throughput, time_budget
from benchmarks.real_data import __main__ as real_data

ROW = {
    "minutes": 2,
    "augmentation": "workers",
    "seconds": 117.0,
    "plan": {"epochs": 3, "iterations_per_epoch": 17, "measured_seconds": {"final": 12.4}},
    "corrections": 2,
}


def test_a_missing_folder_for_results_is_reported_before_anything_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in all benchmarks that take long."""
    missing, work = tmp_path / "gone", ["--work", str(tmp_path / "work")]
    for main, line in (
        (time_budget.main, [*work, "--docs", str(missing)]),
        (throughput.main, [*work, "--docs", str(missing)]),
        (real_data.main, ["brats_2mm", "--results", str(missing / "results.json")]),
    ):
        with pytest.raises(SystemExit) as end:
            main(line)
        assert end.value.code == 2
        assert f"{missing} does not exist: create the folder, or name another" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_times_that_have_a_row_are_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    monkeypatch.setattr(time_budget, "prepare", lambda root: None)
    monkeypatch.setattr(
        time_budget,
        "train",
        lambda root, minutes, augmentation: (
            trained.append((minutes, augmentation)) or {**ROW, "minutes": minutes, "augmentation": augmentation}
        ),
    )
    line = ["--work", str(tmp_path), "--docs", str(tmp_path), "--minutes", "2"]
    time_budget.main(line)
    time_budget.main([*line, "3", "--augmentation", "workers", "device"])
    assert trained == [(2, "workers"), (2, "device"), (3, "workers"), (3, "device")]
    assert len(json.loads((tmp_path / "time_budget.json").read_text())["rows"]) == 4
    text = (tmp_path / "time_budget.md").read_text()
    assert "| 2 minutes |      workers | 117 s |       97.5% |              3 × 17 |           2 |" in text
