"""The trainers of ``benchmarks.real_data``: a training that was stopped ends as any other, and so does its clock."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from plans_example import MakeTrainer, dataset_json, example_plans
from short_trainings import EPOCHS, STEPS, RandomBatches, weights_of

from benchmarks.ext_trainer import benchmark_trainers
from benchmarks.ext_trainer.benchmark_trainers import CLOCK_FILE, MeasuredTrainer


@pytest.mark.parametrize("recipe", ["Stock", "Recipe"])
def test_a_stopped_training_ends_with_the_weights_and_the_time_of_one_that_was_not(
    recipe: str, make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trainer()  # writes the folders
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)
    now = [0.0]
    monkeypatch.setattr(benchmark_trainers.time, "process_time", lambda: now[0])

    def training(seed: int, stops_before: int | None = None) -> MeasuredTrainer:
        kind = getattr(benchmark_trainers, f"nnUNetTrainerBenchmark{recipe}_{EPOCHS}epochs_{STEPS}iters_seed{seed}")
        trainer = kind(example_plans(), "3d_fullres", 0, dataset_json(), torch.device("cpu"))

        def before(batch: str, given: int) -> None:
            now[0] += batch == "train"  # a second for each step
            if (batch, given) == ("train", stops_before):
                os.kill(os.getpid(), signal.SIGTERM)

        trainer.get_dataloaders = lambda: (RandomBatches("train", before), RandomBatches("val", before))
        trainer.initialize()
        return trainer

    complete = training(seed=1)
    complete.run_training()
    fold = Path(complete.output_folder)
    clock = json.loads((fold / CLOCK_FILE).read_text())
    assert clock["epoch_seconds"] == [STEPS] * EPOCHS and clock["iterations"] == EPOCHS * STEPS
    assert clock["parameters"] == sum(parameter.numel() for parameter in complete.network.parameters())
    for file in fold.iterdir():
        if file.is_file():
            file.unlink()

    with pytest.raises(SystemExit):
        training(seed=1, stops_before=STEPS + 2).run_training()
    now[0] += 100
    resumed = training(seed=1)
    resumed.load_checkpoint(str(fold / "checkpoint_latest.pth"))
    resumed.run_training()
    torch.testing.assert_close(weights_of(resumed), weights_of(complete), rtol=0, atol=0)
    assert json.loads((fold / CLOCK_FILE).read_text()) == clock
    other = training(seed=2)
    assert not torch.equal(weights_of(other), weights_of(training(seed=1)))
    assert recipe == "Recipe" or isinstance(complete.optimizer, torch.optim.SGD)
    assert "PlainConvUNet" in type(complete.network).__name__
