"""The training step with fewer launches gives nnU-Net's numbers, with skipped steps, too, and stops waiting."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pytest
import torch
from plans_example import DATASET, MakeTrainer, dataset_json, example_plans
from short_trainings import RandomBatches, ShortTrainings, losses_of, weights_of
from torch import distributed as dist
from waits import Waits

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.doctor import check_step
from factorizer_nnunet.network.ops.launch import is_inlining
from factorizer_nnunet.nnunet.environment import STEP_VARIABLE, StepSetting, step_setting
from factorizer_nnunet.training import stepping
from factorizer_nnunet.training.labelled_loss import LabelledLoss
from factorizer_nnunet.training.stepping import GraphedNetwork, InlinedNetwork, why_no_graphs, why_not_inlined
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SETTINGS = ("plain", "fused")
SCALE = 8.0  # of the loss


@pytest.fixture
def started(short: ShortTrainings, monkeypatch: pytest.MonkeyPatch) -> Any:
    def start(setting: str, scaled: bool = False, overflows: bool = False) -> nnUNetTrainerFactorizer:
        monkeypatch.setenv(STEP_VARIABLE, setting)
        trainer = short.trainer()
        trainer.network.train()
        if scaled:
            trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
        if overflows:
            overflow_once(next(trainer.network.parameters()))
        return trainer

    return start


def overflow_once(parameter: torch.nn.Parameter) -> None:
    """Make its first gradient infinite, as half precision does if the loss is scaled too much."""
    gradients = []

    def infinite(gradient: torch.Tensor) -> torch.Tensor:
        gradients.append(gradient)
        return torch.full_like(gradient, torch.inf) if len(gradients) == 1 else gradient

    parameter.register_hook(infinite)


def run_steps(trainer: nnUNetTrainerFactorizer, steps: int) -> list[float]:
    """Losses of some steps on batches that are always the same."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(3)
    batches = RandomBatches("train", lambda kind, given: None)
    return [float(trainer.train_step(batches.draw())["loss"]) for _ in range(steps)]


def test_all_settings_give_the_same_training(started: Any) -> None:
    plain, fused = started("plain"), started("fused")
    assert fused.optimizer.param_groups[0]["fused"] and not plain.optimizer.param_groups[0]["fused"]
    assert run_steps(fused, 1) == run_steps(plain, 1)
    torch.testing.assert_close(weights_of(fused), weights_of(plain), rtol=1e-4, atol=1e-6)
    # Later weights differ: AdamW makes full steps of the rounding errors that are gradients of biases before a norm.
    assert run_steps(fused, 4) == pytest.approx(run_steps(plain, 4), rel=1e-3)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_step_that_the_scaler_skips_changes_nothing_but_counts(started: Any, setting: str) -> None:
    trainer = started(setting, scaled=True, overflows=True)
    before = weights_of(trainer).clone()
    run_steps(trainer, 1)
    assert trainer.grad_scaler.get_scale() == SCALE / 2
    assert torch.equal(weights_of(trainer), before)
    state = trainer.optimizer.state_dict()["state"]
    assert all(float(of_one["step"]) == 0 and not of_one["exp_avg"].any() for of_one in state.values())
    run_steps(trainer, 2)
    assert trainer.lr_scheduler.iteration == 3
    assert trainer.optimizer.param_groups[0]["lr"] == trainer.lr_scheduler.rate(2)
    assert {float(of_one["step"]) for of_one in trainer.optimizer.state_dict()["state"].values()} == {2.0}
    assert torch.isfinite(weights_of(trainer)).all()


def test_after_a_skipped_step_all_settings_are_equal(started: Any) -> None:
    trainings = [started(setting, scaled=True, overflows=True) for setting in SETTINGS]
    losses = [run_steps(trainer, 4) for trainer in trainings]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_gradients_are_clipped_once_and_to_our_norm(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, norms = torch.nn.utils.clip_grad_norm_, []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda p, norm: norms.append(norm) or clip(p, norm))
    for setting, expected in (("plain", [12, 1.0]), ("fused", [1.0])):
        trainer = started(setting)
        trainer.loss = lambda output, target: 1e4 * output[0].square().sum()
        norms.clear()
        run_steps(trainer, 1)
        assert norms == expected
        gradients = torch.cat([p.grad.flatten() for p in trainer.network.parameters() if p.grad is not None])
        assert float(gradients.norm()) == pytest.approx(trainer.max_gradient_norm, rel=1e-3)


@pytest.mark.parametrize("ignore", [False, True], ids=["all labelled", "ignore label"])
def test_a_fused_step_asks_for_no_value_but_the_loss(
    started: Any, monkeypatch: pytest.MonkeyPatch, ignore: bool
) -> None:
    if ignore:
        monkeypatch.setitem(DATASET, "labels", {**DATASET["labels"], "ignore": 3})
    counts = {}
    for setting in SETTINGS:
        trainer = started(setting, scaled=True)
        run_steps(trainer, 1)  # the scaler and AdamW make their state
        batch = RandomBatches("train", lambda kind, given: None).draw()
        trainer.lr_scheduler.begin_iteration()
        with Waits() as waits:
            stepping.SteppingTrainer.train_step(trainer, batch)
        counts[setting] = waits.values
    assert counts["fused"] == 0 < counts["plain"]


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """That of a distributed training, with one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_several_processes_read_the_loss_and_what_follows_at_once(
    started: Any, process_group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, losses = {}, {}
    for setting in SETTINGS:
        with monkeypatch.context() as alone:  # nnU-Net would put the network on a GPU
            alone.setattr(dist, "is_initialized", lambda: False)
            trainer = started(setting)
        trainer.is_ddp = True
        losses[setting] = run_steps(trainer, 1)
        batch = RandomBatches("train", lambda kind, given: None).draw()
        with Waits() as waits:
            trainer.train_step(batch)
        counts[setting] = waits.values
        trainer.loss = lambda output, target: torch.inf * output[0].sum()
        with pytest.raises(UserError, match=r"the loss is -?(inf|nan) in training step 3"):
            trainer.train_step(batch)
    assert counts["fused"] == 0 < counts["plain"]
    assert losses["fused"] == losses["plain"]


@pytest.mark.parametrize("labelled", ["some", "one output", "none"])
def test_a_fused_step_with_an_ignore_label_has_nnunets_loss(
    started: Any, monkeypatch: pytest.MonkeyPatch, labelled: str
) -> None:
    monkeypatch.setitem(DATASET, "labels", {**DATASET["labels"], "ignore": 3})
    batch = RandomBatches("train", lambda kind, given: None).draw()
    for number, target in enumerate(batch["target"]):
        part = {"some": slice(6), "one output": slice(None) if number == 1 else slice(6), "none": slice(None)}[labelled]
        target[:, :, part] = 3
    results = []
    for setting in SETTINGS:
        trainer = started(setting)
        loss = float(trainer.train_step(batch)["loss"])
        results.append((loss, [p.grad for p in trainer.network.parameters() if p.grad is not None]))
    assert any(isinstance(part, LabelledLoss) for part in trainer.loss.modules())
    assert results[0][0] == results[1][0] and np.isfinite(results[0][0])
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [("plain", "fused"), ("fused", "plain")], ids=" then ".join)
def test_a_training_is_resumed_with_another_setting(
    short: ShortTrainings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: tuple[str, str]
) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "plain")
    whole = short.trainer()
    whole.run_training()
    short.fold.rename(tmp_path / "first")
    monkeypatch.setenv(STEP_VARIABLE, settings[0])
    first = short.trainer()
    first.num_epochs = 2  # of the same schedule
    monkeypatch.setattr(first, "on_train_end", lambda: None)
    first.run_training()
    monkeypatch.setenv(STEP_VARIABLE, settings[1])
    second = short.trainer(go_on=True)
    assert bool(second.optimizer.param_groups[0]["fused"]) is (settings[1] == "fused")
    second.run_training()
    assert losses_of(second)["train_losses"] == pytest.approx(losses_of(whole)["train_losses"], rel=1e-2)
    assert losses_of(second)["lrs"] == losses_of(whole)["lrs"]


@pytest.mark.parametrize(
    ("device", "is_ddp", "compiles", "reason"),
    [
        (CPU, False, True, "the device is cpu"),
        (CUDA, True, True, "several GPUs train together"),
        (CUDA, False, False, "torch.compile is switched off"),
        (CUDA, False, True, None),
    ],
)
def test_why_there_are_no_graphs(device: torch.device, is_ddp: bool, compiles: bool, reason: str | None) -> None:
    assert why_no_graphs(device, is_ddp, compiles) == reason


@pytest.mark.parametrize(
    ("device", "compiles", "kernels", "reason"),
    [
        (CPU, True, True, "the device is cpu"),
        (CUDA, False, True, "torch.compile is switched off"),
        (CUDA, True, False, "this training uses no kernels"),
        (CUDA, True, True, None),
    ],
)
def test_why_kernels_are_not_inlined(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, compiles: bool, kernels: bool, reason: str | None
) -> None:
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)
    monkeypatch.setattr(stepping, "can_use_kernels", lambda x: kernels)
    assert why_not_inlined(device, compiles) == reason


@pytest.mark.parametrize(("setting", "what"), [("graphs", "CUDA graphs"), ("inlined", "inlined kernels")])
def test_without_them_the_log_says_why(
    started: Any, capsys: pytest.CaptureFixture[str], setting: str, what: str
) -> None:
    trainer = started(setting)
    assert trainer._faster is None and trainer.optimizer.param_groups[0]["fused"]
    line = f"nnUNet_factorizer_step={setting}, but no {what}: the device is cpu"
    assert capsys.readouterr().out.count(line) == 1
    run_steps(trainer, 1)


@pytest.mark.parametrize("fails_at", [None, 3])
def test_graphs_that_fail_are_left_out_and_the_step_is_repeated(
    started: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails_at: int | None
) -> None:
    expected = run_steps(started("plain"), 6)
    passes = []

    def compiled(network: torch.nn.Module, mode: str) -> Any:
        def call(data: torch.Tensor) -> Any:
            passes.append(mode)
            if len(passes) == fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
            return network(data)

        return call

    monkeypatch.setattr(stepping, "why_no_graphs", lambda *_: None)
    monkeypatch.setattr(torch, "compile", compiled)
    trainer = started("graphs")
    assert run_steps(trainer, 6) == pytest.approx(expected, rel=1e-3)
    printed = capsys.readouterr().out
    assert passes == ["reduce-overhead"] * (6 if fails_at is None else fails_at)
    assert printed.count("training steps run as CUDA graphs") == (fails_at is None)
    assert printed.count("no CUDA graphs from now on: CUDA out of memory.\n") == (fails_at is not None)


@pytest.mark.parametrize("fails", [False, True])
def test_steps_of_inlined_kernels_are_compiled_for_training_only(
    started: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: bool
) -> None:
    pytest.importorskip("triton", reason="Triton is not available for this platform")
    expected = run_steps(started("plain"), 3)
    monkeypatch.setattr(stepping, "why_not_inlined", lambda *_: None)
    trainer = started("inlined")
    passes, forward = [], trainer.network.forward

    def spied(data: torch.Tensor) -> Any:
        passes.append(is_inlining())
        if fails and is_inlining():
            raise RuntimeError("the compiler cannot do it\nbecause")
        return forward(data)

    trainer.network.forward = spied
    assert run_steps(trainer, 3) == pytest.approx(expected, rel=1e-3)
    assert passes == ([True, False, False, False] if fails else [True] * 3)
    trainer.validation_step(RandomBatches("val", lambda kind, given: None).draw())
    assert passes[-1] is False and not is_inlining()
    printed = capsys.readouterr().out
    assert printed.count("training steps are compiled with inlined kernels") == (not fails)
    assert printed.count("no inlined kernels from now on: the compiler cannot do it\n") == fails


def test_a_wrong_value_is_refused_before_anything_is_written(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trainer()
    results = sorted((tmp_path / "nnUNet_results").rglob("*"))
    monkeypatch.setenv(STEP_VARIABLE, "graph")
    for asked in (make_trainer, check_step):
        with pytest.raises(UserError) as error:
            asked()
        assert (
            str(error.value)
            == f"{STEP_VARIABLE} is 'graph'; set it to one of plain, fused, inlined, graphs, or unset it"
        )
    assert sorted((tmp_path / "nnUNet_results").rglob("*")) == results
    assert step_setting({}) is StepSetting.PLAIN
    monkeypatch.setenv(STEP_VARIABLE, "fused")
    assert "one gradient clip" in check_step().detail


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graphs_on_a_gpu_give_the_values_without(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    results = {}
    make_trainer()  # writes the folders, and switches off torch.compile
    monkeypatch.setenv("nnUNet_compile", "t")
    for setting in ("plain", "fused", "inlined", "graphs"):
        monkeypatch.setenv(STEP_VARIABLE, setting)
        torch.manual_seed(0)
        trainer = nnUNetTrainerFactorizer(example_plans(), "3d_fullres", 0, dataset_json(), CUDA)
        trainer.initialize()
        trainer.network.train()
        results[setting] = run_steps(trainer, 8)
        assert type(trainer._faster) is {"inlined": InlinedNetwork, "graphs": GraphedNetwork}.get(setting, NoneType)
    assert results["fused"] == pytest.approx(results["plain"], rel=0.05)
    assert results["inlined"] == pytest.approx(results["plain"], rel=0.05)
    assert results["graphs"] == pytest.approx(results["plain"], rel=0.05)
