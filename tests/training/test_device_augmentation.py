"""A trainer whose samples are augmented on the device: batches, resuming, workers, and what keeps nnU-Net's way."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augmentation_example import FORMS, loader_of, save_cases
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.noise.median_filter import MedianFilterTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from killed_processes import command_of, wait_for
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from plans_example import MakeTrainer, dataset_json, example_plans
from short_trainings import ShortTrainings, losses_of, weights_of

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import STOPPED
from factorizer_nnunet.doctor import check_augmentation
from factorizer_nnunet.nnunet.environment import (
    AUGMENTATION_VARIABLE,
    STEP_VARIABLE,
    Augmentation,
    augmentation_setting,
)
from factorizer_nnunet.training.augmentation.augmenter import DeviceAugmenter, augment_on_device
from factorizer_nnunet.training.augmentation.pipeline import DividedPipeline, divide
from factorizer_nnunet.training.augmented import checked_augmentation
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer, trainer_variant

CPU = torch.device("cpu")
LoggedLines = list[str]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cases(tmp_path_factory.mktemp("cases"))


def augmenter_of(cases: Path, name: str, log: Callable[[str], None], processes: int = 0) -> Any:
    loader = loader_of(FORMS[name], cases, batch_size=2)
    if processes == 0:
        return augment_on_device(SingleThreadedAugmenter(loader, None), CPU, log)
    return augment_on_device(NonDetMultiThreadedAugmenter(loader, None, processes, 2, wait_time=0.002), CPU, log)


def form_of(batch: dict[str, Any]) -> list[tuple[torch.Size, torch.dtype]]:
    targets = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
    return [(tensor.shape, tensor.dtype) for tensor in (batch["data"], *targets)]


@pytest.mark.parametrize("name", FORMS)
def test_batches_have_the_form_of_nnunets(cases: Path, name: str) -> None:
    stock = next(loader_of(FORMS[name], cases, batch_size=2))
    lines: LoggedLines = []
    batch = next(augmenter_of(cases, name, lines.append))
    assert form_of(batch) == form_of(stock)
    assert len(batch["keys"]) == 2 and not lines


@pytest.mark.parametrize("starts", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_no_worker_is_left_after_many_starts(cases: Path, starts: int) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    before, workers = None, []
    for _ in range(starts):
        augmenter = augmenter_of(cases, "2D", print, processes=2)
        assert isinstance(augmenter, DeviceAugmenter)
        assert form_of(next(augmenter))[0][0] == (2, 2, 32, 28)
        assert len(multiprocessing.active_children()) == 2  # nnU-Net's own have ended
        workers += [child.pid for child in multiprocessing.active_children()]
        augmenter.finish()
        assert not multiprocessing.active_children()
        gc.collect()
        before = opened() if before is None else before
    assert opened() <= before + 10
    shared = [file.name for file in Path("/dev/shm").glob("torch_*")]  # torch_PID_…
    assert not [name for name in shared if int(name.split("_")[1]) in (os.getpid(), *workers)]


def without_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("processes", [0, 1])
def test_too_little_memory_returns_to_the_workers(cases: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    lines: LoggedLines = []
    augmenter = augmenter_of(cases, "3D", lines.append, processes)
    expected = form_of(next(augmenter))

    monkeypatch.setattr(DividedPipeline, "transform", without_memory)
    assert form_of(next(augmenter)) == form_of(next(augmenter)) == expected
    assert lines == ["cpu has too little memory for augmentation: the workers augment from now on"]
    augmenter.finish()
    assert not multiprocessing.active_children()


class Killed(BaseException):
    """Ends a training without a chance to save."""


def training(
    short: ShortTrainings, stop_before: int | None = None, go_on: bool = False, kill: bool = False
) -> nnUNetTrainerFactorizer:
    """A short training with the trainer's own loaders; a signal or a kill comes in step ``stop_before``."""
    trainer = short.trainer(go_on=go_on, seed=5)
    del trainer.get_dataloaders  # the random batches of ``short``
    steps, step = [0], trainer.train_step

    def counted(batch: dict[str, Any]) -> dict[str, Any]:
        if steps[0] == stop_before and kill:
            raise Killed
        if steps[0] == stop_before:
            os.kill(os.getpid(), signal.SIGTERM)
        steps[0] += 1
        return step(batch)

    trainer.train_step = counted
    trainer.run_training()
    return trainer


@pytest.mark.usefixtures("real_cases")
def test_a_training_that_was_stopped_ends_as_one_that_was_not(short: ShortTrainings, tmp_path: Path) -> None:
    whole = training(short)
    assert isinstance(whole.dataloader_train, DeviceAugmenter) and isinstance(whole.dataloader_val, DeviceAugmenter)
    expected, logged = weights_of(whole), losses_of(whole)
    assert np.isfinite(logged["train_losses"]).all()
    short.fold.rename(tmp_path / "first")
    short.fold.mkdir()
    with pytest.raises(SystemExit) as end:
        training(short, stop_before=7)
    assert end.value.code == STOPPED
    resumed = training(short, go_on=True)
    torch.testing.assert_close(weights_of(resumed), expected, rtol=0, atol=0)
    assert losses_of(resumed) == logged


@pytest.mark.usefixtures("real_cases")
def test_a_training_that_was_killed_continues_from_its_last_step(
    short: ShortTrainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORIZER_CHECKPOINT_MINUTES", "1e-9")  # after every step
    expected = weights_of(training(short))
    short.fold.rename(tmp_path / "first")
    short.fold.mkdir()
    with pytest.raises(Killed):
        training(short, stop_before=8, kill=True)
    torch.testing.assert_close(weights_of(training(short, go_on=True)), expected, rtol=0, atol=0)


def train_until_killed() -> None:
    """Train with the workers that the environment asks for; the first step says which they are, and never ends."""

    class Waits(trainer_variant("nnUNetTrainerFactorizer_1epochs_2iters")):
        def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
            print("workers", *(child.pid for child in multiprocessing.active_children()), flush=True)
            while True:
                time.sleep(60)

    trainer = Waits(example_plans(), "3d_fullres", 0, dataset_json(), CPU)
    trainer.initialize()
    trainer.run_training()


@pytest.mark.slow  # a process that imports nnU-Net
@pytest.mark.usefixtures("real_cases")
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="asks Linux which processes run")
@pytest.mark.parametrize("value", ["device", "workers"])
def test_no_worker_outlives_a_training_that_was_killed(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(AUGMENTATION_VARIABLE, value)
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    code = f"import sys; sys.path[:] = {sys.path}; import {__name__} as this; this.train_until_killed()"
    training = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    (line,) = itertools.islice((line for line in training.stdout if line.startswith("workers ")), 1)
    workers = [int(pid) for pid in line.split()[1:]]
    assert len(workers) == 3 and all(map(command_of, workers))  # one is for validation
    training.kill()
    training.wait()
    try:
        wait_for(lambda: [pid for pid in workers if not command_of(pid)], 3)
    finally:
        for pid in workers:
            if train_until_killed.__name__ in command_of(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("real_cases")
def test_pretrained_weights_are_trained_further(short: ShortTrainings, tmp_path: Path) -> None:
    first = training(short)
    file = tmp_path / "pretrained.pth"
    (short.fold / "checkpoint_final.pth").rename(file)
    trainer = short.trainer(seed=6)
    del trainer.get_dataloaders
    load_pretrained_weights(trainer.network, str(file))
    torch.testing.assert_close(weights_of(trainer)[:100], weights_of(first)[:100], rtol=0, atol=0)
    trainer.run_training()
    assert isinstance(trainer.dataloader_train, DeviceAugmenter)
    assert not torch.equal(weights_of(trainer), weights_of(first)) and torch.isfinite(weights_of(trainer)).all()


def fail(trainer: nnUNetTrainerFactorizer, where: str, times: int = 1) -> None:
    """The next ``times`` forward or backward passes or updates have too little memory."""
    hooks: list[Any] = []

    def failing(*_: object) -> None:
        if len(hooks) == 1 + times:
            return
        hooks.append(None)
        without_memory()

    if where == "forward":
        hooks.append(trainer.network.register_forward_hook(failing))
    elif where == "backward":  # of the first layer, when the others have their gradients
        hooks.append(next(trainer.network.parameters()).register_hook(failing))
    else:
        hooks.append(trainer.optimizer.register_step_post_hook(failing))


def started(short: ShortTrainings) -> nnUNetTrainerFactorizer:
    """A training before its first step, with the trainer's own loaders."""
    trainer = short.trainer(seed=5)
    del trainer.get_dataloaders
    trainer.on_train_start()
    trainer.network.train()
    return trainer


@pytest.mark.usefixtures("real_cases")
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("setting", ["plain", "fused"])
def test_a_step_that_lacks_memory_is_repeated_and_the_workers_augment(
    short: ShortTrainings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    setting: str,
) -> None:
    monkeypatch.setenv(STEP_VARIABLE, setting)
    usual, trainer = started(short), started(short)
    batch = next(trainer.dataloader_train)
    expected = usual.train_step(batch)["loss"]
    fail(trainer, where)
    assert trainer.train_step(batch)["loss"] == expected
    torch.testing.assert_close(weights_of(trainer), weights_of(usual), rtol=0, atol=0)
    assert trainer.lr_scheduler.iteration == 1 and len(trainer._losses) == 1
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        assert isinstance(loader, DeviceAugmenter) and not loader.is_active
    trainer.train_step(next(trainer.dataloader_train))
    line = "cpu has too little memory for a step next to augmentation: the step is repeated, and the workers augment"
    assert capsys.readouterr().out.count(line) == 1


@pytest.mark.usefixtures("real_cases")
@pytest.mark.parametrize("case", ["twice", "after the update", "in several processes", "augmented by workers"])
def test_a_step_that_cannot_be_repeated_ends_the_training(
    short: ShortTrainings, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    if case == "augmented by workers":
        monkeypatch.setenv(AUGMENTATION_VARIABLE, "workers")
    trainer = started(short)
    trainer.is_ddp = case == "in several processes"
    batch = next(trainer.dataloader_train)
    fail(trainer, "update" if case == "after the update" else "forward", times=2 if case == "twice" else 1)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train_step(batch)
    assert not trainer._losses
    trainer.train_step(batch)  # fails no more


class WithMedianFilter(nnUNetTrainerFactorizer):
    @staticmethod
    def get_training_transforms(*args: Any, **options: Any) -> BasicTransform:
        stock = nnUNetTrainerFactorizer.get_training_transforms(*args, **options)
        return ComposeTransforms([*stock.transforms, MedianFilterTransform(3)])


@pytest.mark.usefixtures("real_cases")
def test_a_pipeline_with_a_transform_of_its_own_stays_with_the_workers(
    make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer()
    trainer = WithMedianFilter(example_plans(), "3d_fullres", 0, dataset_json(), CPU)
    trainer.initialize()
    training_loader, validation_loader = trainer.get_dataloaders()
    assert type(training_loader) is SingleThreadedAugmenter
    assert isinstance(validation_loader, DeviceAugmenter)
    line = "the transform MedianFilterTransform is not known to augmentation on the device: the workers augment"
    assert capsys.readouterr().out.count(line) == 1


@pytest.mark.usefixtures("real_cases")
@pytest.mark.parametrize("value", ["auto", "workers", ""])
def test_workers_augment_unless_the_variable_asks_for_the_device(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(AUGMENTATION_VARIABLE, value)
    trainer = make_trainer()
    trainer.initialize()
    assert {type(loader) for loader in trainer.get_dataloaders()} == {SingleThreadedAugmenter}


def test_a_wrong_value_is_refused_before_anything_is_written(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trainer()
    results = sorted((tmp_path / "nnUNet_results").rglob("*"))
    monkeypatch.setenv(AUGMENTATION_VARIABLE, "gpu")
    message = f"{AUGMENTATION_VARIABLE} is 'gpu'; set it to one of auto, device, workers, or unset it"
    for asked in (make_trainer, check_augmentation):
        with pytest.raises(UserError) as error:
            asked()
        assert str(error.value) == message
    assert sorted((tmp_path / "nnUNet_results").rglob("*")) == results
    monkeypatch.setenv(AUGMENTATION_VARIABLE, "device")
    assert checked_augmentation(CPU) is Augmentation.DEVICE
    with pytest.raises(UserError, match="is 'device', which does not work on mps"):
        checked_augmentation(torch.device("mps"))
    assert augmentation_setting({}) is Augmentation.WORKERS


@pytest.mark.parametrize(("value", "said"), [("", "the workers augment"), ("device", "the training device augments")])
def test_the_doctor_says_where_samples_are_augmented(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    monkeypatch.setenv(AUGMENTATION_VARIABLE, value)
    assert said in check_augmentation().detail


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", FORMS)
def test_a_gpu_gives_the_values_of_the_cpu(cases: Path, name: str) -> None:
    stock = loader_of(FORMS[name], cases, batch_size=2)
    stock.transforms = ComposeTransforms([t for t in stock.transforms.transforms if "Noise" not in repr(t)])
    on_gpu = DeviceAugmenter(SingleThreadedAugmenter(stock, None), torch.device("cuda"), print)
    divided = divide(stock.transforms)
    for number in range(10):
        np.random.seed(number)
        box = next(on_gpu._boxes)
        results = []
        for device in ("cpu", "cuda"):
            np.random.seed(number)
            torch.manual_seed(number)
            image, labels = box["data"][0].clone().to(device), box["target"][0].clone().to(device)
            results.append(divided.transform(image, labels, box["pad"][0], box["affine"][0]))
        expected, given = results
        torch.testing.assert_close(given[0].cpu(), expected[0], rtol=0, atol=1e-3)
    for _ in range(3):
        batch = next(on_gpu)
        assert batch["data"].is_cuda and torch.isfinite(batch["data"]).all()
