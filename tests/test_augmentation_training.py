"""``python -m benchmarks.augmentation_training``: what it runs, what it resumes, and what its page concludes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import augmentation_training as benchmark
from benchmarks.augmentation_training import AugmentedWorkspace, key, page, run_all, verdict
from benchmarks.real_data.data import DATA_SETS
from benchmarks.real_data.results import Results
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.environment import Augmentation

DATA = DATA_SETS["hippocampus"]


def finished(dice: float, seconds: float = 80.0, iterations: int = 400) -> dict[str, Any]:
    scores = {case: {"anterior": [dice - 0.02, 0.9], "posterior": [dice + 0.02, None]} for case in ("a", "b")}
    versions = {"torch": "2", "nnunetv2": "2.8"}
    described = {"machine": "m", "versions": versions}
    length = {"iterations": iterations, "seconds": seconds, "command_seconds": 90.0}
    return {**length, "parameters": 1_000_000, "scores": scores, **described}


def all_pieces(workers: list[float], device: list[float]) -> dict[str, Any]:
    pairs = ((Augmentation.WORKERS, workers), (Augmentation.DEVICE, device))
    return {key(which, seed): finished(dice) for which, own in pairs for seed, dice in enumerate(own)}


def test_the_page_compares_the_pipelines_by_the_spread_of_seeds() -> None:
    text = page(all_pieces([0.64, 0.66, 0.65], [0.65, 0.63, 0.67]))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert ["1", "0.6600", "0.6300", "0.200", "0.200"] in rows
    assert ["mean", "0.6500", "0.6500", "0.200", "0.200"] in rows
    assert ["standard deviation", "0.0100", "0.0200", "", ""] in rows
    assert "within the noise of seeds" in text and "+0.0000" in text


def test_a_difference_beyond_the_spread_is_called_one() -> None:
    assert "larger than the noise" in verdict([0.640, 0.641, 0.642], [0.60, 0.601, 0.602])
    assert "within the noise" in verdict([0.640, 0.70, 0.66], [0.63, 0.64, 0.68])
    assert "needs two seeds" in verdict([0.64], [0.63])


def test_what_has_results_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def train(workspace: AugmentedWorkspace, data: Any, seed: int) -> dict[str, Any]:
        assert workspace.environment("nnUNetv2_train")["nnUNet_factorizer_augmentation"] == workspace.augmentation.value
        trained.append(key(workspace.augmentation, seed))
        return finished(0.6 + seed / 100)

    monkeypatch.setattr(benchmark, "run_training", train)
    monkeypatch.setattr(AugmentedWorkspace, "prepare", lambda *_: None)
    results = Results(tmp_path / "results.json")
    results.add("pieces", "workers/seed_0", finished(0.6))
    run_all(tmp_path / "work", 1, DATA, tmp_path, [0, 1], results)
    assert trained == ["device/seed_0", "workers/seed_1", "device/seed_1"]
    assert "within the noise" in (tmp_path / "results.md").read_text()
    with pytest.raises(UserError, match="400 iterations"):
        run_all(tmp_path / "work", 1, benchmark.replace(DATA, short=800), tmp_path, [2], results)


@pytest.mark.parametrize("said", ["the workers augment", ""])
def test_a_training_that_another_pipeline_augmented_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    workspace = AugmentedWorkspace(tmp_path, augmentation=Augmentation.DEVICE)

    def train(own: AugmentedWorkspace, data: Any, model: Any, number: int) -> float:
        folder = own.fold(data, model, number).path
        folder.mkdir(parents=True)
        (folder / "training_log_1.txt").write_text(f"a step takes 1 s; {said}")
        return 1.0

    workspace.preprocessed(DATA).mkdir(parents=True)
    monkeypatch.setattr(AugmentedWorkspace, "write_plans", lambda *_: None)
    monkeypatch.setattr(benchmark, "train", train)
    with pytest.raises(UserError, match="does not say that the device augments"):
        benchmark.run_training(workspace, DATA, 0)


def test_the_committed_results_are_of_equal_trainings() -> None:
    pieces = json.loads(benchmark.RESULTS.read_text())["pieces"]
    assert {own["iterations"] for own in pieces.values()} == {DATA.short}
    seeds = [set(benchmark.of_pipeline(pieces, which)) for which in benchmark.PIPELINES]
    assert seeds[0] == seeds[1] and len(seeds[0]) >= 3
    assert benchmark.RESULTS.with_suffix(".md").read_text() == page(pieces)


@pytest.mark.parametrize("number", ["60", "75", "-10"])
def test_trainings_that_are_too_short_for_their_logs_are_refused(
    number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--root", "work", "--iterations", number])
    assert f"{number} is not a multiple of 10 from 70 on" in capsys.readouterr().err
