"""The script that reports the hippocampus cross-validation: which models it takes, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser import CHROMIUM
from PIL import Image
from results_example import add_model, write_study

from benchmarks.hippocampus_cv_report import finished_models, main


def test_models_are_those_that_the_benchmark_trains(tmp_path: Path) -> None:
    (tmp_path / "iteration_time.json").write_text(json.dumps({"ratio": 2.0}))
    models = finished_models(tmp_path, 400)
    assert {title: folder.name.split("__")[0] for title, folder in models.items()} == {
        "nnU-Net (PlainConvUNet, SGD)": "nnUNetTrainerBenchmarkStock_8epochs_50iters",
        "Factorizer, equal wall time": "nnUNetTrainerBenchmarkFactorizer_16epochs_50iters",
        "Factorizer, equal iterations": "nnUNetTrainerBenchmarkFactorizer_8epochs_50iters",
    }
    (tmp_path / "iteration_time.json").write_text(json.dumps({"ratio": 1.0}))
    assert len(finished_models(tmp_path, 400)) == 2  # equal time is equal length


def test_page_and_picture_of_finished_folds(tmp_path: Path) -> None:
    study = write_study(tmp_path, 5)
    models = [str(add_model(study, trainer, 0.3)) for trainer in ("nnUNetTrainer", "nnUNetTrainerFactorizer")]
    (tmp_path / "docs").mkdir()
    raw = str(study.raw.parent)
    options = ["--root", str(tmp_path), "--docs", str(tmp_path / "docs"), "--raw", raw, "--partial"]
    assert main([*options, "--models", *models, "--names", "nnU-Net", "Factorizer"]) == 0
    assert "5 of 10 training cases" in (tmp_path / "hippocampus_report.html").read_text(encoding="utf-8")
    if CHROMIUM is not None:
        with Image.open(tmp_path / "docs" / "hippocampus_report.png") as picture:
            assert picture.size == (1320, 2300) and len(picture.getcolors(10_000_000)) > 100


def test_without_trained_folds_there_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 2
    assert "run python -m benchmarks.hippocampus DATA" in capsys.readouterr().err
