"""A training with a time: how many epochs fit, and that measuring them leaves no trace."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from plans_example import NAME, MakeTrainer, example_plans
from short_trainings import RandomBatches, weights_of
from stock_plans import configuration

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.process_identity import process_age
from factorizer_nnunet.running.progress import training_progress
from factorizer_nnunet.training.time_plan import MeasuredTimes, TimePlan, plan_time, read_time_plan, write_time_plan
from factorizer_nnunet.training.timed import TimedTrainer
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

TRAINER = "nnUNetTrainerFactorizer_1m_6iters"
TIMES = MeasuredTimes(spent=30, step=0.1, validation_step=0.05, epoch_end=1.0, final=90)

seconds = st.floats(1e-3, 100)


@given(
    times=st.builds(
        MeasuredTimes,
        spent=st.floats(0, 600),
        step=seconds,
        validation_step=seconds,
        epoch_end=seconds,
        final=seconds,
    ),
    minutes=st.floats(1, 60 * 48),
    iterations=st.integers(20, 250),
)
def test_the_plan_ends_in_time_and_uses_it(times: MeasuredTimes, minutes: float, iterations: int) -> None:
    validation = iterations // 5
    try:
        plan = plan_time(minutes, times, iterations, validation)
    except UserError:
        least = 10 * (times.step + validation / iterations * times.validation_step) + times.epoch_end
        assert times.spent + times.final + least + times.validation_step > 60 * minutes * (1 - 1e-9)
        return
    epoch = (
        plan.iterations_per_epoch * times.step + plan.validation_iterations * times.validation_step + times.epoch_end
    )
    total = times.spent + times.final + plan.epochs * epoch
    complete = iterations * times.step + validation * times.validation_step + times.epoch_end
    assert total <= 60 * minutes * (1 + 1e-9)
    if times.spent + times.final + complete > 60 * minutes:  # shorter epochs, with as many fewer validation iterations
        assert 1 <= plan.epochs <= 10 <= plan.iterations_per_epoch <= iterations
        share = plan.iterations_per_epoch / iterations * validation
        assert share - 1 <= plan.validation_iterations <= min(validation, share + 1)
        return
    assert iterations / 2 <= plan.iterations_per_epoch <= iterations
    assert plan.validation_iterations == validation
    assert total <= 60 * minutes * (1 + 1e-9)
    # Either no epoch could have a step more, or not one more complete epoch fits.
    left = plan.epochs * times.step if plan.iterations_per_epoch < iterations else max(epoch, plan.epochs * times.step)
    assert 60 * minutes - total <= left * (1 + 1e-9)


def test_a_time_that_is_too_short_is_refused_with_one_that_is_not() -> None:
    slow = replace(TIMES, step=10)
    with pytest.raises(
        UserError, match=r"of 3 minutes is too short: starting takes 0\.5, 10 iterations .* _4m or more"
    ):
        plan_time(3, slow, 250, 50)
    assert plan_time(4, slow, 250, 50) == TimePlan(epochs=1, iterations_per_epoch=11, validation_iterations=3)


def test_less_than_one_usual_epoch_becomes_several_short_ones() -> None:
    """A training of 20 minutes on a slow CPU."""
    slow = replace(TIMES, step=4.7, validation_step=1.5)
    assert plan_time(20, slow, 250, 50) == TimePlan(epochs=10, iterations_per_epoch=21, validation_iterations=5)
    assert plan_time(2.2, TIMES, 50, 10) == TimePlan(epochs=2, iterations_per_epoch=45, validation_iterations=10)


def test_the_plan_is_kept_in_the_folds_folder_and_shown_by_status(tmp_path: Path) -> None:
    assert read_time_plan(tmp_path) is None
    plan = plan_time(60, TIMES, 250, 50)
    write_time_plan(plan, TIMES, tmp_path)
    assert read_time_plan(tmp_path) == plan
    (tmp_path / "training_log_1.txt").write_text("2026-01-01 00:00:09: Epoch 0 \n")
    progress = training_progress(tmp_path, "nnUNetTrainerFactorizer_1h")
    assert progress is not None and progress.total == plan.epochs


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"epochs": "3", "iterations_per_epoch": 1}'])
def test_a_damaged_plan_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "time_plan.json").write_text(content)
    with pytest.raises(UserError, match=r"time_plan\.json.*Restore it"):
        read_time_plan(tmp_path)


def prepared(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> nnUNetTrainerFactorizer:
    """A trainer with random batches, whose start took no time, and whose final validation takes a second."""
    trainer = make_trainer(TRAINER)
    (tmp_path / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json").write_text(json.dumps({}))
    trainer.get_dataloaders = lambda: tuple(RandomBatches(kind, lambda *_: None) for kind in ("train", "val"))
    monkeypatch.setattr(TimedTrainer, "_seconds_of_final_validation", lambda self: 1.0)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    trainer.initialize()
    trainer._started = time.monotonic()  # not when pytest started
    return trainer


def test_measuring_leaves_no_trace(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trainer = prepared(make_trainer, monkeypatch, tmp_path)
    weights, random = weights_of(trainer).clone(), torch.get_rng_state()
    before = []
    monkeypatch.setattr(TimedTrainer, "_measure", _noting(TimedTrainer._measure, before))
    trainer.on_train_start()
    assert torch.equal(weights_of(trainer), weights)
    assert torch.equal(torch.get_rng_state(), before[0]) and not torch.equal(before[0], random)
    assert not trainer.optimizer.state_dict()["state"]
    assert all(parameter.grad is None for parameter in trainer.network.parameters())
    assert trainer._losses == [] and trainer.lr_scheduler.iteration == 0
    plan = read_time_plan(Path(trainer.output_folder))
    assert plan is not None and (trainer.num_epochs, trainer.num_iterations_per_epoch) == (
        plan.epochs,
        plan.iterations_per_epoch,
    )
    assert trainer.lr_scheduler.total == plan.epochs * plan.iterations_per_epoch
    assert trainer.lr_scheduler.iterations_per_epoch == plan.iterations_per_epoch
    assert trainer.save_every == max(1, min(50, plan.epochs // 10))


def test_a_time_that_is_too_short_leaves_no_fold(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = prepared(make_trainer, monkeypatch, tmp_path)
    monkeypatch.setattr(TimedTrainer, "_measure", lambda self: replace(TIMES, spent=1e6))
    with pytest.raises(UserError, match="is too short"):
        trainer.on_train_start()
    assert not Path(trainer.output_folder).exists()


def _noting(measure, states: list):  # noqa: ANN001 - of a private method
    def noted(self: TimedTrainer) -> MeasuredTimes:
        states.append(torch.get_rng_state())
        return measure(self)

    return noted


def test_a_resumed_training_keeps_its_plan(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = prepared(make_trainer, monkeypatch, tmp_path)
    trainer.on_train_start()
    trainer.current_epoch = 2
    file = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    edited = TimePlan(epochs=7, iterations_per_epoch=3, validation_iterations=1)
    write_time_plan(edited, TIMES, Path(trainer.output_folder))
    resumed = prepared(make_trainer, monkeypatch, tmp_path)
    monkeypatch.setattr(TimedTrainer, "_measure", lambda self: pytest.fail("measured again"))
    resumed.load_checkpoint(str(file))
    resumed.on_train_start()
    assert (resumed.num_epochs, resumed.num_iterations_per_epoch) == (7, 3)
    assert resumed.lr_scheduler.total == 21
    (Path(trainer.output_folder) / "time_plan.json").unlink()
    lost = prepared(make_trainer, monkeypatch, tmp_path)
    lost.load_checkpoint(str(file))
    with pytest.raises(UserError, match=r"time_plan\.json.* is missing: restore it"):
        lost.on_train_start()


@pytest.mark.parametrize(
    ("axes", "shape"), [(3, (16, 16, 16)), (3, (9, 40, 17)), (3, (33, 25, 16)), (2, (5, 40, 17)), (2, (1, 16, 90))]
)
def test_tiles_are_counted_as_nnunet_makes_them(make_trainer: MakeTrainer, axes: int, shape: tuple[int, ...]) -> None:
    trainer = make_trainer("nnUNetTrainerFactorizer_1h", plans=example_plans(**{"3d_fullres": configuration(axes)}))
    predictor = nnUNetPredictor()
    predictor.configuration_manager = trainer.configuration_manager
    patch = trainer.configuration_manager.patch_size
    skipped = len(shape) - len(patch)
    padded = (*shape[:skipped], *map(max, zip(shape[skipped:], patch, strict=True)))
    assert trainer._number_of_tiles(shape) == len(predictor._internal_get_sliding_window_slicers(padded))


def test_the_final_validation_is_estimated_from_a_tile_and_an_export(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer("nnUNetTrainerFactorizer_1h")
    trainer.initialize()
    monkeypatch.setattr(TimedTrainer, "_seconds_of_export", lambda self, shape, properties: 0.5)
    trainer._import_seconds = 0.0
    tile = trainer._seconds_of_tile()
    assert trainer.network.decoder.deep_supervision == trainer.enable_deep_supervision
    monkeypatch.setattr(TimedTrainer, "_seconds_of_tile", lambda self: 2.0)
    assert 0 < tile < math.inf
    assert trainer._seconds_of_final_validation() == pytest.approx(2.0 + 0.5)  # one case, smaller than a patch


def test_the_age_of_a_process_grows() -> None:
    age = process_age()
    assert 0 <= age <= process_age()
