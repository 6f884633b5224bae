"""Trainers that leave out channels: what networks see, which draws are possible, and what checkpoints say."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import plans_example
import pytest
import short_trainings
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from plans_example import MakeTrainer
from preprocessed_case import save_case
from short_trainings import STEPS, ShortTrainings, weights_of
from torch import Tensor
from waits import Waits

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.absent_channels import channel_factors, leave_out
from factorizer_nnunet.nnunet.checkpoint import read_fold
from factorizer_nnunet.training.channel_drop import KEEP_ALL, dataset_as_seen, draw_present, without_channels
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

DROPS = "nnUNetTrainerFactorizer_channeldrop"


def batch(axes: int = 3, channels: int = 2) -> dict[str, Any]:
    data = torch.randn(2, channels, *[16] * axes)
    target = torch.randint(0, 3, (2, 1, *[16] * axes)).float()
    halves = target[(..., *[slice(None, None, 2)] * axes)]
    return {"data": data, "target": [target, halves], "keys": np.array(["case_0", "case_1"])}


@pytest.fixture
def case_1_lacks_t2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plans_example.DATASET, "absent_channels", {"case_1": [1]})


def seen_by(
    trainer: nnUNetTrainerFactorizer, given: dict[str, Any], steps: int = 1, validation: bool = False
) -> Tensor:
    """What the network gets in some steps: (steps, batch, channels, *spatial)."""
    inputs: list[Tensor] = []
    hook = trainer.network.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].detach().clone()))
    for _ in range(steps):
        if validation:
            with torch.no_grad():
                trainer.validation_step(given)
        else:
            trainer.train_step(given)
    hook.remove()
    return torch.stack(inputs)


def initialized(make_trainer: MakeTrainer, name: str, configuration: str = "3d_fullres") -> nnUNetTrainerFactorizer:
    trainer = make_trainer(name, configuration)
    trainer.initialize()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    return trainer


def test_every_subset_is_drawn_and_all_channels_half_of_the_time() -> None:
    np.random.seed(3)
    drawn = Counter(tuple(draw_present(np.ones(4, bool)).tolist()) for _ in range(4000))
    assert set(drawn) == set(itertools.product((True, False), repeat=4)) - {(False,) * 4}
    assert drawn[True, True, True, True] / 4000 == pytest.approx(KEEP_ALL, abs=0.03)
    by_number = Counter(dict.fromkeys((1, 2, 3), 0))
    for present, count in drawn.items():
        if not all(present):
            by_number[4 - sum(present)] += count
    for count in by_number.values():
        assert count / 4000 == pytest.approx((1 - KEEP_ALL) / 3, abs=0.03)


def test_channels_that_a_case_lacks_are_never_drawn() -> None:
    existing = np.array([True, False, True])
    drawn = {tuple(draw_present(existing).tolist()) for _ in range(200)}
    assert drawn == {(True, False, True), (True, False, False), (False, False, True)}
    assert existing.tolist() == [True, False, True]
    assert draw_present(np.array([False, True])).tolist() == [False, True]


def test_training_and_prediction_see_an_absent_channel_alike() -> None:
    data = torch.randn(2, 5, 3, 4)
    data[0, 1, 0, 0] = torch.inf
    present = np.array([[True, False, True], [True, True, True]])
    seen = without_channels(data, present)
    assert (seen[0, 1] == 0).all() and not torch.signbit(seen[0, 1]).any()
    torch.testing.assert_close(seen[:, 3:], data[:, 3:], rtol=0, atol=0)  # of the previous stage
    torch.testing.assert_close(seen[1], data[1], rtol=0, atol=0)
    np.testing.assert_array_equal(leave_out(data[0, :3].numpy().copy(), {1}), seen[0, :3].numpy())
    on_device = data.to("meta")
    with Waits() as waits:
        assert without_channels(on_device, present).shape == data.shape
    assert waits.copies == 0
    # Equal channels keep their sum, however many are absent.
    sums = channel_factors(np.array([*itertools.product((True, False), repeat=3)])[:-1]).sum(-1)
    np.testing.assert_allclose(sums, 3, rtol=1e-6)


@pytest.mark.parametrize(("configuration", "axes"), [("3d_fullres", 3), ("2d", 2)])
def test_training_steps_leave_out_channels_and_validation_does_not(
    make_trainer: MakeTrainer, configuration: str, axes: int
) -> None:
    trainer, given = initialized(make_trainer, DROPS, configuration), batch(axes)
    np.random.seed(1)
    seen = seen_by(trainer, given, steps=8)
    ways = {
        tuple(float(sample[channel].sum() / original[channel].sum()) for channel in range(2))
        for step in seen
        for sample, original in zip(step, given["data"], strict=True)
    }
    assert {tuple(np.round(way, 3)) for way in ways} == {(1.0, 1.0), (2.0, 0.0), (0.0, 2.0)}
    torch.testing.assert_close(seen_by(trainer, given, validation=True)[0], given["data"], rtol=0, atol=0)


def test_an_ordinary_trainer_sees_every_channel(make_trainer: MakeTrainer) -> None:
    trainer, given = initialized(make_trainer, "nnUNetTrainerFactorizer"), batch()
    seen = seen_by(trainer, given, steps=3)
    torch.testing.assert_close(seen, given["data"].expand_as(seen), rtol=0, atol=0)


@pytest.mark.usefixtures("case_1_lacks_t2")
def test_declared_channels_are_absent_in_validation_too(make_trainer: MakeTrainer) -> None:
    trainer, given = initialized(make_trainer, DROPS), batch()
    expected = given["data"].clone()
    expected[1, 0] *= 2
    expected[1, 1] = 0
    torch.testing.assert_close(seen_by(trainer, given, validation=True)[0], expected, rtol=0, atol=0)
    seen = seen_by(trainer, given, steps=4)
    torch.testing.assert_close(seen[:, 1], expected[1].expand_as(seen[:, 1]), rtol=0, atol=0)


def test_the_previous_stage_of_a_cascade_stays(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = initialized(make_trainer, DROPS)
    seen = []
    monkeypatch.setattr(nnUNetTrainer, "train_step", lambda _, given: seen.append(given["data"]) or {"loss": 1.0})
    given = batch(channels=4)  # two of the image, two labels
    for _ in range(20):
        trainer.train_step(given)
    assert all(torch.equal(data[:, 2:], given["data"][:, 2:]) for data in seen)
    assert any((data[:, :2] == 0).any() for data in seen)


def test_final_validation_reads_cases_as_the_network_sees_them(tmp_path: Path) -> None:
    for number, case in enumerate(("case_0", "case_1")):
        save_case(tmp_path, case, image=number)
    stored = nnUNetDatasetBlosc2(str(tmp_path))
    seen = dataset_as_seen(nnUNetDatasetBlosc2, {"case_1": frozenset({0})})(str(tmp_path))
    assert isinstance(seen, nnUNetDatasetBlosc2)
    np.testing.assert_array_equal(seen.load_case("case_0")[0][:], stored.load_case("case_0")[0][:])
    data, segmentation, _, properties = seen.load_case("case_1")
    assert not data[:].any()
    np.testing.assert_array_equal(segmentation[:], stored.load_case("case_1")[1][:])
    assert properties.keys() == stored.load_case("case_1")[3].keys()


@pytest.mark.usefixtures("case_1_lacks_t2")
def test_only_the_final_validation_uses_that_reader(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = initialized(make_trainer, DROPS)
    stock, used = trainer.dataset_class, []
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda self, _: used.append(self.dataset_class))
    trainer.perform_actual_validation()
    assert issubclass(used[0], stock) and used[0] is not stock
    assert trainer.dataset_class is stock


@pytest.mark.parametrize(("name", "says"), [(DROPS, True), ("nnUNetTrainerFactorizer_2epochs", False)])
def test_a_checkpoint_says_how_it_was_trained(make_trainer: MakeTrainer, tmp_path: Path, name: str, says: bool) -> None:
    trainer = initialized(make_trainer, name)
    trainer.save_checkpoint(str(tmp_path / "checkpoint_final.pth"))
    assert read_fold(tmp_path / "checkpoint_final.pth").channel_drop is says


def test_a_resumed_training_leaves_out_the_same_channels(
    short: ShortTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_trainings, "TRAINER", f"{short_trainings.TRAINER}_channeldrop")
    short.fold = short.fold.parents[1] / f"{short_trainings.TRAINER}__nnUNetPlans__3d_fullres" / "fold_0"
    trainer = short.trainer()
    trainer.run_training()
    shutil.rmtree(short.fold)
    short.fold.mkdir()

    def stop(kind: str, given: int) -> None:
        if (kind, given) == ("train", STEPS + 2):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        short.trainer(stop).run_training()
    resumed = short.trainer(go_on=True, seed=99)
    resumed.run_training()
    torch.testing.assert_close(weights_of(resumed), weights_of(trainer), rtol=0, atol=0)


def test_a_single_channel_cannot_be_left_out(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plans_example.DATASET, "channel_names", {"0": "CT"})
    plans = plans_example.example_plans()
    for settings in plans["configurations"].values():
        settings["normalization_schemes"], settings["use_mask_for_norm"] = ["CTNormalization"], [False]
    for suffix in ("", "_repeat2"):
        advice = rf"leaves out channels, .* only one: CT. Train with nnUNetTrainerFactorizer{suffix}$"
        with pytest.raises(UserError, match=advice):
            make_trainer(f"nnUNetTrainerFactorizer_channeldrop{suffix}", plans=plans)


@pytest.mark.usefixtures("case_1_lacks_t2")
def test_other_trainers_warn_about_absent_channels(
    make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer("nnUNetTrainerFactorizer_3epochs")
    assert "1 case without some channels" in (out := capsys.readouterr().out)
    assert "trained with -tr nnUNetTrainerFactorizer_3epochs_channeldrop" in out
    make_trainer(DROPS)
    assert "WARNING" not in capsys.readouterr().out
