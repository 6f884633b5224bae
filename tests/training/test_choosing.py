"""A training that chooses who augments by what it has measured: when it does, what it says, and what it leaves."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.noise.median_filter import MedianFilterTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from short_trainings import ShortTrainings, losses_of

from factorizer_nnunet.doctor import check_augmentation
from factorizer_nnunet.nnunet.environment import AUGMENTATION_VARIABLE, Augmentation
from factorizer_nnunet.training import augmented, choosing, data_wait
from factorizer_nnunet.training.augmentation.augmenter import DeviceAugmenter, prepared_batches
from factorizer_nnunet.training.augmentation.loader import BoxLoader
from factorizer_nnunet.training.augmentation_choice import LIMITING_SHARE, data_limit
from factorizer_nnunet.training.augmented import can_augment, checked_augmentation
from factorizer_nnunet.training.data_wait import DataWait, Measured
from factorizer_nnunet.training.stepping import SteppingTrainer
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

STEP = 0.1  # seconds, of a clock that only steps and batches move
Train = Callable[..., nnUNetTrainerFactorizer]
TO_DEVICE = "auto: a step takes 0.100 s, after 0.300 s of waiting for data (75% of the time, above 20%)"


@pytest.fixture
def train(short: ShortTrainings, real_cases: None, monkeypatch: pytest.MonkeyPatch) -> Train:
    """A training with the trainer's own loaders, three epochs of five steps, on a clock of its own.

    A batch takes ``workers`` seconds where the workers augment, and ``device`` seconds where the device does. Before
    the step of a number, counted from 0, something may be done.
    """
    monkeypatch.setenv(AUGMENTATION_VARIABLE, "auto")
    monkeypatch.setattr(data_wait, "FIRST_STEPS", 1)
    monkeypatch.setattr(data_wait, "MEASURED_STEPS", 2)
    now = [0.0]
    seconds = {"workers": 0.0, "device": 0.0}
    monkeypatch.setattr(choosing, "DataWait", partial(DataWait, clock=lambda: now[0]))
    for augmenter, loader in ((SingleThreadedAugmenter, "data_loader"), (NonDetMultiThreadedAugmenter, "generator")):

        def timed(self: Any, following: Any = augmenter.__next__, loader: str = loader) -> Any:
            now[0] += seconds["device" if isinstance(getattr(self, loader), BoxLoader) else "workers"]
            return following(self)

        monkeypatch.setattr(augmenter, "__next__", timed)
    step = SteppingTrainer._step

    def timed_step(self: SteppingTrainer, batch: dict) -> dict:
        now[0] += STEP
        return step(self, batch)

    monkeypatch.setattr(SteppingTrainer, "_step", timed_step)

    def train(
        workers: float,
        device: float,
        before: dict[int, Callable[[nnUNetTrainerFactorizer], None]] | None = None,
        go_on: bool = False,
    ) -> nnUNetTrainerFactorizer:
        seconds.update(workers=workers, device=device)
        trainer = short.trainer(go_on=go_on)
        del trainer.get_dataloaders  # the random batches of ``short``
        steps, run = [0], trainer.train_step

        def counted(batch: dict) -> dict:
            (before or {}).get(steps[0], lambda _: None)(trainer)
            steps[0] += 1
            return run(batch)

        trainer.train_step = counted
        trainer.run_training()
        return trainer

    return train


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What has been logged about waiting since the last call."""

    def read() -> list[str]:
        lines = [line.partition(": ")[2].strip() for line in capsys.readouterr().out.splitlines()]
        return [line for line in lines if re.search(r"\baugment(s|ing)?\b", line)]

    return read


def test_the_device_augments_if_data_limit(train: Train, said: Callable[[], list[str]]) -> None:
    loaders, paces = [], []

    def look(trainer: nnUNetTrainerFactorizer) -> None:
        loaders.append(type(trainer.dataloader_train))
        paces.append(trainer._pace.is_known)

    trainer = train(workers=0.3, device=0.1, before={4: look, 5: look, 10: look})
    assert said() == [
        f"{TO_DEVICE}: the training device augments from now on",
        "auto: a step takes 0.100 s, after 0.100 s of waiting for data (50% of the time), 2.0 times as fast as before: "
        "the training device goes on augmenting",
    ]
    assert loaders == [SingleThreadedAugmenter, DeviceAugmenter, DeviceAugmenter], "from the second epoch on"
    assert paces == [False, False, True], "the workers' pace is forgotten"
    assert trainer.dataloader_train.is_active
    assert type(trainer.dataloader_val) is SingleThreadedAugmenter, "validation stays as it is"
    assert np.isfinite(losses_of(trainer)["train_losses"]).all()


def test_the_workers_augment_again_if_the_device_is_no_faster(train: Train, said: Callable[[], list[str]]) -> None:
    trainer = train(workers=0.3, device=0.4)
    assert said() == [
        f"{TO_DEVICE}: the training device augments from now on",
        "auto: a step takes 0.100 s, after 0.400 s of waiting for data (80% of the time), no faster than the 0.400 s "
        "of before: the workers augment again",
    ]
    assert not trainer.dataloader_train.is_active and not trainer.can_free_memory


def test_the_workers_go_on_if_data_do_not_limit(train: Train, said: Callable[[], list[str]]) -> None:
    paces = []
    trainer = train(workers=0.02, device=0.0, before={5: lambda trainer: paces.append(trainer._pace.is_known)})
    assert said() == [
        "auto: a step takes 0.100 s, after 0.020 s of waiting for data (17% of the time, not above 20%): the workers "
        "go on augmenting"
    ]
    assert paces == [True]
    assert type(trainer.dataloader_train) is SingleThreadedAugmenter


def test_what_the_last_epoch_measures_is_logged(
    train: Train, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_wait, "FIRST_STEPS", 11)  # of 15
    trainer = train(workers=0.3, device=0.1)
    assert said() == ["a step takes 0.100 s, after 0.300 s of waiting for data (75% of the time); the workers augment"]
    assert type(trainer.dataloader_train) is SingleThreadedAugmenter


@pytest.mark.parametrize(("first", "who"), [(14, "workers augment"), (2, "device augments")])
def test_a_training_too_short_for_a_choice_says_so(
    train: Train, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, first: int, who: str
) -> None:
    monkeypatch.setattr(data_wait, "FIRST_STEPS", first)  # of 15
    train(workers=0.3, device=0.1, before={4: lambda _: monkeypatch.setattr(data_wait, "FIRST_STEPS", 9)})
    assert said()[-1] == f"auto: this training has too few steps to choose by; the {who}"


@pytest.mark.parametrize("value", ["", "workers", "device"])
def test_only_auto_chooses(
    train: Train, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(AUGMENTATION_VARIABLE, value)
    trainer = train(workers=0.3, device=0.3)
    who = "device augments" if value == "device" else "workers augment"
    assert said() == [f"a step takes 0.100 s, after 0.300 s of waiting for data (75% of the time); the {who}"]
    assert isinstance(trainer.dataloader_train, DeviceAugmenter) is (value == "device")


def test_too_little_memory_keeps_the_workers(
    train: Train, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augmented, "free_bytes", lambda device: 1000)
    trainer = train(workers=0.3, device=0.0)
    (line,) = said()
    assert line.startswith(f"{TO_DEVICE}, but a training step and augmentation on the device need up to ")
    assert line.endswith(" GB, and the GPU has 0.0 GB: the workers go on augmenting")
    assert type(trainer.dataloader_train) is SingleThreadedAugmenter


def test_a_transform_that_is_not_known_keeps_the_workers(
    train: Train, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = nnUNetTrainerFactorizer.get_training_transforms

    def with_median_filter(*args: Any, **options: Any) -> ComposeTransforms:
        return ComposeTransforms([*usual(*args, **options).transforms, MedianFilterTransform(3)])

    monkeypatch.setattr(nnUNetTrainerFactorizer, "get_training_transforms", staticmethod(with_median_filter))
    trainer = train(workers=0.3, device=0.0)
    assert said() == [
        f"{TO_DEVICE}, but the transform MedianFilterTransform is not known to augmentation on the device: the workers "
        "go on augmenting"
    ]
    assert type(trainer.dataloader_train) is SingleThreadedAugmenter


def test_a_device_that_cannot_augment_keeps_the_workers(
    train: Train, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mps = torch.device("mps")
    assert not can_augment(mps) and checked_augmentation(mps) is Augmentation.AUTO, "it is not refused"
    monkeypatch.setattr(choosing, "can_augment", lambda device: can_augment(mps))
    trainer = train(workers=0.3, device=0.0)
    assert said() == [
        "auto: cpu cannot augment: the workers do",
        "a step takes 0.100 s, after 0.300 s of waiting for data (75% of the time); the workers augment",
    ]
    assert type(trainer.dataloader_train) is SingleThreadedAugmenter


def test_memory_that_runs_out_ends_the_choice(train: Train, said: Callable[[], list[str]]) -> None:
    def lack(trainer: nnUNetTrainerFactorizer) -> None:
        forward = trainer.network.forward

        def failing(data: torch.Tensor) -> Any:
            trainer.network.forward = forward
            raise torch.OutOfMemoryError("CUDA out of memory")

        trainer.network.forward = failing

    trainer = train(workers=0.3, device=0.0, before={6: lack})
    first, second, third = said()
    assert first.endswith("the training device augments from now on")
    assert second.endswith("the step is repeated, and the workers augment from now on")
    assert third.startswith("a step takes ") and third.endswith("; the workers augment")
    assert not trainer.dataloader_train.is_active and len(losses_of(trainer)["train_losses"]) == 3


def test_a_training_that_is_continued_measures_again(train: Train, said: Callable[[], list[str]]) -> None:
    def stop(trainer: nnUNetTrainerFactorizer) -> None:
        assert trainer.dataloader_train.is_active
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        train(workers=0.3, device=0.0, before={5: stop})
    said()
    trainer = train(
        workers=0.3,
        device=0.0,
        before={0: lambda trainer: isinstance(trainer.dataloader_train, SingleThreadedAugmenter) or pytest.fail()},
        go_on=True,
    )
    assert said() == [
        f"{TO_DEVICE}: the training device augments from now on",
        "a step takes 0.100 s, after 0.000 s of waiting for data (0% of the time); the device augments",
    ]
    assert trainer.dataloader_train.is_active and len(losses_of(trainer)["train_losses"]) == 3


def test_the_workers_of_the_loader_before_have_ended(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.setattr(choosing, "prepared_batches", lambda loader: 0)
    children: list[set[int]] = []

    def count(_: object) -> None:
        children.append({child.pid or 0 for child in multiprocessing.active_children()})

    trainer = train(workers=0.3, device=0.4, before={4: count, 5: count, 10: count})
    by_workers, by_device, again = children
    assert len(by_workers) == len(by_device) == len(again) == 2, "one for training and one for validation"
    assert len(by_workers & by_device) == len(by_device & again) == 1, "that of validation"
    assert not trainer.dataloader_train.is_active and not multiprocessing.active_children()


def test_batches_that_were_made_ahead_are_not_measured() -> None:
    loader = NonDetMultiThreadedAugmenter(None, None, 12, 6)
    assert prepared_batches(loader) == 6 + 6 + 12
    assert prepared_batches(SingleThreadedAugmenter(None, None)) == prepared_batches(None) == 0
    now = [0.0]
    wait, measured = DataWait(prepared=30, clock=lambda: now[0]), None
    for step in range(1, 200):
        now[0] += 0.0 if step <= 30 else 3.0
        wait.step_begins()
        now[0] += 1.0
        measured = measured or wait.step_ends()
    assert measured == Measured(step=1.0, waiting=3.0)


def test_the_limit_is_that_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIMITING_SHARE == 1 / 5
    assert not data_limit(Measured(step=0.8, waiting=0.19)) and data_limit(Measured(step=0.8, waiting=0.21))
    details = {}
    for value in ("", "auto", "workers"):
        monkeypatch.setenv(AUGMENTATION_VARIABLE, value)
        details[value] = check_augmentation().detail
    assert details[""].startswith("not set: the workers augment")
    assert "for more than a fifth of the time" in details["auto"] and "not measured on a GPU yet" in details["auto"]
    assert details["workers"] == "workers: as in nnU-Net"
