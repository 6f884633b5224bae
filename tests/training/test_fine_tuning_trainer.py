"""Frozen parts stay as they are, the warm-up is as long as the name says, and a start of no step is a new training."""

from __future__ import annotations

import pytest
import torch
from plans_example import MakeTrainer

from factorizer_nnunet.training.budget import changed_suffix
from factorizer_nnunet.training.random_state import random_state

BASE = "nnUNetTrainerFactorizer"


@pytest.mark.parametrize(
    ("parts", "trained"),
    [
        ("_freezeencoder", ("decoder.",)),
        ("_freezestem", ("encoder.downsamples.", "encoder.stages.", "decoder.")),
        ("_freezeencoder_freezedecoder", ("decoder.seg_layers.",)),
        ("", ("encoder.", "decoder.")),
    ],
)
def test_frozen_weights_stay_and_all_others_move(
    make_trainer: MakeTrainer, parts: str, trained: tuple[str, ...]
) -> None:
    trainer = make_trainer(f"{BASE}_2epochs_2iters_lr1e-2_warmup1{parts}")
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    before = {name: value.detach().clone() for name, value in trainer.network.named_parameters()}
    patch = (2, 2, *trainer.configuration_manager.patch_size)
    for _ in range(2):  # some gradients are 0 until other weights have moved
        trainer.lr_scheduler.begin_iteration()
        trainer.optimizer.zero_grad()
        outputs = trainer.network(torch.randn(patch))
        sum(output.square().mean() for output in outputs).backward()
        trainer.optimizer.step()
    moved = {name for name, value in trainer.network.named_parameters() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith(trained) for name in moved)
    for beginning in trained:
        assert any(name.startswith(beginning) for name in moved)


def test_the_name_sets_the_warm_up(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(f"{BASE}_2epochs_50iters_warmup40")
    trainer.initialize()
    assert trainer.lr_scheduler.length.warmup == 40


@pytest.mark.parametrize("losses", [[], [0.5]])
def test_only_an_interrupted_training_needs_its_time_plan(make_trainer: MakeTrainer, losses: list[float]) -> None:
    trainer = make_trainer(f"{BASE}_30m")
    trainer.initialize()
    trainer.current_epoch = -1  # as fine-tuning saves it before the first epoch
    file = trainer.output_folder + "/checkpoint_latest.pth"
    trainer.save_checkpoint(file)
    content = torch.load(file, weights_only=False)
    torch.save({**content, "factorizer_resume": {"losses": losses, "random_state": random_state(trainer.device)}}, file)
    again = make_trainer(f"{BASE}_30m")
    again.load_checkpoint(file)
    assert again.current_epoch == 0 and again._continues is bool(losses)


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ("", {"learning_rate": 3e-4}, "_lr3e-4"),
        ("_20epochs_50iters", {"learning_rate": 1.5e-4, "warmup": 10}, "_20epochs_50iters_lr15e-5_warmup10"),
        ("_1.5h_channeldrop", {"freeze": ("stem", "decoder")}, "_1.5h_freezestem_freezedecoder_channeldrop"),
        ("_lr0.01_warmup3_freezeencoder", {}, "_lr0.01_warmup3_freezeencoder"),
        ("_lr0.01", {"learning_rate": 1.0}, "_lr1"),
        ("_2epochs_repeat3", {"warmup": 4}, "_2epochs_warmup4_repeat3"),
    ],
)
def test_a_suffix_takes_other_settings(before: str, changes: dict, after: str) -> None:
    assert changed_suffix(before, **changes) == after


@pytest.mark.parametrize("changes", [{"learning_rate": -1e-3}, {"warmup": 0}, {"freeze": ("head",)}])
def test_a_suffix_takes_no_impossible_settings(changes: dict) -> None:
    with pytest.raises(ValueError, match="invalid trainer suffix"):
        changed_suffix("", **changes)
