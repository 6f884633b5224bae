"""The learning rate rises, falls to nearly nothing, and depends on the position alone."""

from __future__ import annotations

import pytest
import torch

from factorizer_nnunet.training.schedule import Length, WarmupPolySchedule

EPOCHS, ITERATIONS, WARMUP, PEAK = 6, 10, 5, 1e-3


def new_schedule() -> WarmupPolySchedule:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    return WarmupPolySchedule(
        torch.optim.AdamW([{"params": [weight], "weight_decay": 0.0}]),
        PEAK,
        Length(EPOCHS, ITERATIONS, WARMUP),
    )


def run_epoch(schedule: WarmupPolySchedule, epoch: int) -> list[float]:
    """The rates that the steps of one epoch were taken with, in nnU-Net's order of calls."""
    schedule.step(epoch)
    rates = []
    for _ in range(ITERATIONS):
        schedule.begin_iteration()
        rates.append(schedule.optimizer.param_groups[0]["lr"])
    return rates


def test_rates_rise_to_the_peak_and_fall_to_the_end() -> None:
    schedule = new_schedule()
    rates = [schedule.rate(iteration) for iteration in range(EPOCHS * ITERATIONS)]
    assert rates[:WARMUP] == sorted(rates[:WARMUP])
    assert rates[WARMUP - 1 :] == sorted(rates[WARMUP - 1 :], reverse=True)
    assert 0 < rates[0] <= PEAK / WARMUP
    assert 0.9 * PEAK < max(rates) <= PEAK
    assert 0 < rates[-1] < 0.05 * PEAK


def test_after_warmup_it_is_nnunets_polynomial() -> None:
    schedule = new_schedule()
    assert schedule.rate(30) == pytest.approx(PEAK * 0.5**0.9)


def test_every_step_takes_its_own_rate() -> None:
    schedule = new_schedule()
    rates = [rate for epoch in range(EPOCHS) for rate in run_epoch(schedule, epoch)]
    assert rates == [schedule.rate(iteration) for iteration in range(EPOCHS * ITERATIONS)]


@pytest.mark.parametrize("stopped", range(1, EPOCHS))
def test_a_resumed_training_takes_the_same_rates(stopped: int) -> None:
    uninterrupted = new_schedule()
    rates = [run_epoch(uninterrupted, epoch) for epoch in range(EPOCHS)]
    resumed = new_schedule()
    interrupted = new_schedule()
    for epoch in range(stopped):
        run_epoch(interrupted, epoch)
    resumed.optimizer.load_state_dict(interrupted.optimizer.state_dict())
    assert [run_epoch(resumed, epoch) for epoch in range(stopped, EPOCHS)] == rates[stopped:]


def test_each_epoch_starts_at_its_own_place() -> None:
    schedule = new_schedule()
    schedule.step(0)
    schedule.begin_iteration()
    assert run_epoch(schedule, 1)[0] == schedule.rate(ITERATIONS)


def test_no_warmup_starts_at_the_peak() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])
    schedule = WarmupPolySchedule(optimizer, PEAK, Length(1, 2, 0))
    assert schedule.rate(0) == PEAK


def test_epochs_of_another_length_begin_where_the_others_end() -> None:
    length = Length(6, 4, 0, first_epoch=2, first_iteration=20)
    assert (length.begin_of(2), length.begin_of(3), length.total) == (20, 24, 36)
