"""``python -m benchmarks.accuracy``: which models it compares, and its report of those that are trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from results_example import Study, add_model, write_study

ROOT = Path(__file__).resolve().parents[2]


def compare(study: Study, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmark with the study's root as its working folder."""
    command = [sys.executable, "-m", "benchmarks.accuracy", str(study.raw), "--root", str(study.root)]
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)


def test_models_compared_have_equal_iterations_or_equal_training_time(tmp_path: Path) -> None:
    study = write_study(tmp_path, 5)
    timing = tmp_path / "iteration_time.json"
    timing.write_text(json.dumps({"ratio": 2.0}))
    assert compare(study, "--list").stdout.splitlines() == [
        "nnU-Net: nnUNetTrainerBenchmarkStock_8epochs_50iters, no finished fold",
        "Factorizer, equal training time: nnUNetTrainerBenchmarkFactorizer_16epochs_50iters, no finished fold",
        "Factorizer, equal iterations: nnUNetTrainerBenchmarkFactorizer_8epochs_50iters, no finished fold",
    ]
    timing.write_text(json.dumps({"ratio": 1.6}))
    assert "Factorizer_12epochs_50iters" in compare(study, "--list").stdout
    timing.write_text(json.dumps({"ratio": 1.0}))
    assert len(compare(study, "--list").stdout.splitlines()) == 2  # equal time is equal length


def test_page_and_table_of_finished_folds(tmp_path: Path) -> None:
    study = write_study(tmp_path, 5)
    trainers = ("nnUNetTrainer", "nnUNetTrainerFactorizer")
    for number, trainer in enumerate(trainers, 1):
        for summary in add_model(study, trainer, 0.3).glob("fold_*/validation/summary.json"):
            mean = {"1": {"Dice": number / 10}, "2": {"Dice": number / 5}}
            summary.write_text(json.dumps({**json.loads(summary.read_text()), "mean": mean}))
    done = compare(study, "--report-only", "--trainers", *trainers)
    assert done.returncode == 0, done.stderr
    assert "5 of 10 training cases" in (tmp_path / "accuracy.html").read_text(encoding="utf-8")
    table = (tmp_path / "accuracy.md").read_text(encoding="utf-8")
    assert "Folds finished by all trainers: 0, 1, 2, 3, 4." in table
    assert "| nnUNetTrainerFactorizer | nnUNetTrainerFactorizer | 0.2000 | 0.4000 | 0.3000 |" in table


def test_without_trained_folds_there_is_a_message(tmp_path: Path) -> None:
    study = write_study(tmp_path, 5)
    assert "nothing has run in" in compare(study, "--report-only").stderr
    done = compare(study, "--report-only", "--trainers", "nnUNetTrainer")
    assert done.returncode == 1 and "no finished fold" in done.stderr
