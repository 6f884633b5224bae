"""The time a training waits for its data."""

from __future__ import annotations

import pytest

from factorizer_nnunet.training.augmentation_choice import describe_wait
from factorizer_nnunet.training.data_wait import FIRST_STEPS, MEASURED_STEPS, DataWait, Measured


def test_waiting_is_what_passes_between_the_steps_of_an_epoch() -> None:
    now = [0.0]
    wait = DataWait(clock=lambda: now[0])
    results = []
    for number in range(3 * (FIRST_STEPS + MEASURED_STEPS)):
        now[0] += 0.03
        if number % 25 == 0:
            now[0] += 1000  # validation
            wait.epoch_begins()
        wait.step_begins()
        now[0] += 60 if number < FIRST_STEPS else 0.01  # compiling
        results.append(wait.step_ends())
    (measured,) = [result for result in results if result is not None]
    assert (measured.step, measured.waiting) == (pytest.approx(0.01), pytest.approx(0.03))
    assert measured.share == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("waiting", "on_gpu", "by_workers", "advised"),
    [(0.3, True, True, True), (0.001, True, True, False), (0.3, False, True, False), (0.3, True, False, False)],
)
def test_the_log_advises_only_what_could_help(waiting: float, on_gpu: bool, by_workers: bool, advised: bool) -> None:
    line = describe_wait(Measured(0.1, waiting), on_gpu, by_workers)
    assert line.startswith(f"a step takes 0.100 s, after {waiting:.3f} s of waiting for data")
    assert ("nnUNet_factorizer_augmentation=device" in line) == advised
