"""A training with a time: how many epochs fit, and that measuring them leaves no trace."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from plans_example import NAME, MakeTrainer, example_plans
from short_trainings import RandomBatches, weights_of
from stock_plans import configuration

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.process_identity import process_age
from factorizer_nnunet.running.progress import training_progress
from factorizer_nnunet.training import timed
from factorizer_nnunet.training.pace import Pace
from factorizer_nnunet.training.time_plan import (
    MeasuredTimes,
    TimePlan,
    corrected_plan,
    plan_time,
    read_time_plan,
    write_time_plan,
)
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
    if times.spent + times.final + 10 * complete > 60 * minutes:  # shorter epochs, with fewer validation iterations
        assert 1 <= plan.epochs <= 10 <= plan.iterations_per_epoch <= iterations
        share = Fraction(plan.iterations_per_epoch * validation, iterations)  # exact: it may be a whole number
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


def test_less_than_ten_usual_epochs_become_ten_short_ones() -> None:
    """A training of 20 minutes on a slow CPU and on a faster one, and one too short for ten ends of epochs."""
    slow = replace(TIMES, step=4.7, validation_step=1.5)
    assert plan_time(20, slow, 250, 50) == TimePlan(epochs=10, iterations_per_epoch=21, validation_iterations=5)
    fast = replace(TIMES, step=1.0, validation_step=0.5)
    assert plan_time(20, fast, 250, 50) == TimePlan(epochs=10, iterations_per_epoch=96, validation_iterations=20)
    assert plan_time(2.2, TIMES, 50, 10) == TimePlan(epochs=2, iterations_per_epoch=44, validation_iterations=9)


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


def prepared(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: FakeClock | None = None
) -> nnUNetTrainerFactorizer:
    """A trainer with random batches, whose start took no time, and whose final validation takes a second."""
    trainer = make_trainer(TRAINER)
    (tmp_path / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json").write_text(json.dumps({}))
    before = (lambda *_: None) if clock is None else clock.before
    trainer.get_dataloaders = lambda: tuple(RandomBatches(kind, before) for kind in ("train", "val"))
    monkeypatch.setattr(TimedTrainer, "_seconds_of_final_validation", lambda self: 1.0)
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)  # takes longer than an epoch
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    trainer.initialize()
    trainer._started = time.monotonic() if clock is None else clock.now  # not when pytest started
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
    assert trainer.lr_scheduler.length.total == plan.epochs * plan.iterations_per_epoch
    assert trainer.lr_scheduler.length.iterations_per_epoch == plan.iterations_per_epoch
    assert trainer.save_every == max(1, min(50, plan.epochs // 10))


def test_a_time_that_is_too_short_leaves_no_fold(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = prepared(make_trainer, monkeypatch, tmp_path)
    monkeypatch.setattr(TimedTrainer, "_measure", lambda self, minutes: replace(TIMES, spent=1e6))
    with pytest.raises(UserError, match="is too short"):
        trainer.on_train_start()
    assert not Path(trainer.output_folder).exists()


def _noting(measure, states: list):  # noqa: ANN001 - of a private method
    def noted(self: TimedTrainer, minutes: float) -> MeasuredTimes:
        states.append(torch.get_rng_state())
        return measure(self, minutes)

    return noted


def test_a_resumed_training_keeps_its_plan_and_its_time(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = prepared(make_trainer, monkeypatch, tmp_path)
    trainer.on_train_start()
    trainer.current_epoch = 2
    plan = TimePlan(epochs=7, iterations_per_epoch=3, validation_iterations=1, first_epoch=1, first_iteration=5)
    trainer._follow(plan)
    trainer._started -= 20
    spent = trainer._seconds_spent()
    file = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    resumed = prepared(make_trainer, monkeypatch, tmp_path)
    monkeypatch.setattr(TimedTrainer, "_measure", lambda self, minutes: pytest.fail("measured again"))
    resumed.load_checkpoint(str(file))
    resumed.on_train_start()
    assert (resumed.num_epochs, resumed.num_iterations_per_epoch) == (7, 3)
    assert resumed.lr_scheduler.length.total == 5 + 6 * 3
    assert resumed._time_plan == plan and resumed._final == trainer._final
    assert 20 < spent <= resumed._seconds_before < resumed._seconds_spent()


def test_a_checkpoint_without_a_plan_needs_the_one_of_its_folder(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As earlier versions wrote it."""
    trainer = prepared(make_trainer, monkeypatch, tmp_path)
    trainer.current_epoch = 2
    file = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    write_time_plan(TimePlan(epochs=7, iterations_per_epoch=3, validation_iterations=1), TIMES, file.parent)
    resumed = prepared(make_trainer, monkeypatch, tmp_path)
    resumed.load_checkpoint(str(file))
    assert (resumed.num_epochs, resumed.num_iterations_per_epoch, resumed._final) == (7, 3, None)
    (file.parent / "time_plan.json").unlink()
    lost = prepared(make_trainer, monkeypatch, tmp_path)
    lost.load_checkpoint(str(file))
    with pytest.raises(UserError, match=r"time_plan\.json.* is missing: restore it"):
        lost.on_train_start()


def test_the_remaining_epochs_fit_the_time_that_is_left() -> None:
    plan = TimePlan(epochs=20, iterations_per_epoch=100, validation_iterations=10)
    slower = corrected_plan(plan, 5, left=15 * (60 * 1.5 + 4), step=1.5, others=4)
    assert (slower.epochs, slower.iterations_per_epoch, slower.iterations_before(5)) == (20, 60, 500)
    faster = corrected_plan(slower, 7, left=13 * (130 * 0.5 + 4), step=0.5, others=4)
    assert (faster.iterations_per_epoch, faster.iterations_before(7)) == (130, 620)
    assert faster.iterations_before(20) == 620 + 13 * 130
    assert corrected_plan(plan, 19, left=-3, step=1, others=4).iterations_per_epoch == 1


class FakeClock:
    """A clock that a training batch advances by a second; after ``slow_from`` of them by ``factor``."""

    def __init__(self, factor: float, slow_from: int = 10) -> None:
        self.now, self.factor, self.slow_from, self.batches = 0.0, factor, slow_from, 0

    def monotonic(self) -> float:
        return self.now

    def before(self, kind: str, given: int) -> None:
        if kind == "train":
            self.now += 1.0 if self.batches < self.slow_from else self.factor
            self.batches += 1


@pytest.mark.parametrize("minutes", [6, 60])
@pytest.mark.parametrize("factor", [1.0, 1.3, 1.6, 3.0, 0.6])
def test_corrections_at_the_pace_of_recent_epochs_end_in_time(factor: float, minutes: int) -> None:
    clock, final, others = FakeClock(factor), 5.0, 2.5
    pace = Pace(clock.monotonic)
    times = MeasuredTimes(spent=0, step=1, validation_step=0.2, epoch_end=0.5, final=final)
    plan = plan_time(minutes, times, 50, 10)
    for epoch in range(1, plan.epochs + 1):
        pace.steps_begin()
        for _ in range(plan.iterations_per_epoch):
            clock.before("train", 0)
        pace.steps_end(plan.iterations_per_epoch)
        clock.now += others
        pace.epoch_ends()
        if epoch < plan.epochs:
            left = 60 * minutes - clock.now - final
            plan = corrected_plan(plan, epoch, left, pace.step, pace.others)
    assert plan.iterations_before(plan.epochs) == clock.batches
    assert 0.98 <= (clock.now + final) / (60 * minutes) <= 1.02


def test_an_epoch_that_only_ends_says_nothing_about_steps() -> None:
    clock = FakeClock(1.0)
    pace = Pace(clock.monotonic)
    for steps in (0, 4):
        pace.steps_begin()
        for _ in range(steps):
            clock.before("train", 0)
        pace.steps_end(steps)
        clock.now += 3
        pace.epoch_ends()
        assert pace.is_known is (steps > 0)
    assert (pace.step, pace.others) == (1, 3)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_training_ends_in_time_although_the_machine_changes(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stopped: bool
) -> None:
    clock, final = FakeClock(1.6), 5.0
    monkeypatch.setattr(timed, "time", clock)
    times = MeasuredTimes(spent=0.0, step=1.0, validation_step=1e-3, epoch_end=1e-3, final=final)
    monkeypatch.setattr(TimedTrainer, "_measure", lambda self, minutes: times)
    trainer = prepared(make_trainer, monkeypatch, tmp_path, clock)
    if stopped:
        begin = trainer.on_validation_epoch_start

        def stop_once() -> None:
            begin()
            if trainer.current_epoch == 5:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(trainer, "on_validation_epoch_start", stop_once)
        with pytest.raises(SystemExit):
            trainer.run_training()
        clock.now += 1000  # between the sessions
        trainer = prepared(make_trainer, monkeypatch, tmp_path, clock)
        trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
        assert trainer._seconds_before == pytest.approx(clock.now - 1000)
    trainer.run_training()
    taken = clock.now + final - 1000 * stopped
    assert 0.95 * 60 <= taken <= 1.05 * 60
    assert trainer.current_epoch == 10
    log = "".join(file.read_text() for file in sorted(Path(trainer.output_folder).glob("training_log*")))
    assert timed.CORRECTED in log
    assert trainer.lr_scheduler.iteration == trainer.lr_scheduler.length.total == clock.batches
    rates = [float(rate) for rate in trainer.logger.get_checkpoint()["lrs"]]
    assert rates[1:] == sorted(rates[1:], reverse=True)


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
