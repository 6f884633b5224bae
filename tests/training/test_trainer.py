"""The trainer: found by nnU-Net, with the recipe's optimizer, clipping, supervision and checkpoints."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from plans_example import MakeTrainer, example_plans
from stock_plans import configuration

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.processes import script
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.environment import environment_variables, ext_trainer_folder
from factorizer_nnunet.training.budget import Budget
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("nnUNetTrainerFactorizer", Budget()),
        ("nnUNetTrainerFactorizer_channeldrop", Budget(channel_drop=True)),
        (
            "nnUNetTrainerFactorizer_7epochs_30iters_lr3e-4",
            Budget(epochs=7, iterations_per_epoch=30, learning_rate=3e-4),
        ),
    ],
)
def test_nnunet_finds_the_trainer_and_its_variants(monkeypatch: pytest.MonkeyPatch, name: str, budget: Budget) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(ext_trainer_folder()))
    trainer = recursive_find_trainer_class_by_name(name)
    assert issubclass(trainer, nnUNetTrainerFactorizer)
    assert trainer.__name__ == name  # nnU-Net names the results folder by it
    assert trainer.budget == budget


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        ("_20epo", "expected any of"),
        ("_0h", "hours must be above 0"),
        ("_0m", "minutes must be above 0"),
        ("_0.0h", "hours must be above 0"),
        ("_-1h", "expected any of"),
        ("_.5h", "expected any of"),
        ("_6h_30m", "expected any of"),
        ("_6H", "expected any of"),
        ("_h6", "expected any of"),
        ("_lr1e-3_6h", "in this order"),
        ("_50iters_30m", "in this order"),
        ("_channeldrop_6h_lr1e-3", "in this order"),
    ],
)
def test_nnunets_lookup_tells_a_malformed_suffix(monkeypatch: pytest.MonkeyPatch, suffix: str, reason: str) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(ext_trainer_folder()))
    with pytest.raises(UserError, match=rf"^invalid trainer suffix '{re.escape(suffix)}': .*{reason}"):
        recursive_find_trainer_class_by_name(f"nnUNetTrainerFactorizer{suffix}")


def test_nnunets_command_tells_a_malformed_suffix_without_a_traceback(tmp_path: Path) -> None:
    """In one line, before it looks for a data set."""
    environment = {**os.environ, **environment_variables(tmp_path, {})}
    words = [script("nnUNetv2_train"), "1", "3d_fullres", "0", "-tr", "nnUNetTrainerFactorizer_6H"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "error: invalid trainer suffix '_6H'" in done.stderr


def test_trainers_of_others_are_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(ext_trainer_folder()))
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer nnUNetTrainerFactoriser"):
        recursive_find_trainer_class_by_name("nnUNetTrainerFactoriser")


def test_the_folder_for_nnunet_contains_only_the_shim() -> None:
    """nnU-Net imports every module there under its bare name."""
    assert [path.name for path in ext_trainer_folder().glob("*.py")] == ["nnUNetTrainerFactorizer.py"]


def test_a_variant_trains_as_long_as_its_name_says(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("nnUNetTrainerFactorizer_30epochs_20iters_lr2e-3")
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (30, 20, 4)
    assert trainer.initial_lr == 2e-3
    assert trainer.save_every == 3
    assert Path(trainer.output_folder_base).name == (
        "nnUNetTrainerFactorizer_30epochs_20iters_lr2e-3__nnUNetPlans__3d_fullres"
    )


def test_without_a_suffix_the_length_is_nnunets(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (
        1000,
        250,
        50,
    )
    assert trainer.save_every == 50


def test_only_matrices_and_kernels_decay(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.initialize()
    decay = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    for name, parameter in trainer.network.named_parameters():
        expected = 0.0 if parameter.ndim <= 1 else trainer.weight_decay
        assert decay[id(parameter)] == expected, name
    assert set(decay.values()) == {0.0, trainer.weight_decay}


@pytest.mark.parametrize(("scale", "kept"), [(1e4, False), (1e-6, True)])
def test_gradients_are_clipped_as_the_optimizer_steps(make_trainer: MakeTrainer, scale: float, kept: bool) -> None:
    trainer = make_trainer()
    trainer.initialize()
    parameters = list(trainer.network.parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, scale)
    trainer.optimizer.step()
    gradients = torch.cat([parameter.grad.flatten() for parameter in parameters])
    if kept:
        torch.testing.assert_close(gradients, torch.full_like(gradients, scale))
    else:
        assert gradients.norm().item() == pytest.approx(trainer.max_gradient_norm, rel=1e-3)


@pytest.mark.parametrize(("num_stages", "num_outputs"), [(2, None), (3, 2), (4, 3)])
def test_training_steps_with_and_without_deep_supervision(
    make_trainer: MakeTrainer, num_stages: int, num_outputs: int | None
) -> None:
    """nnU-Net gives the lowest output no weight, so with a single one nothing would be left to learn from."""
    trainer = make_trainer(plans=example_plans(**{"3d_fullres": configuration(3, num_stages)}))
    trainer.initialize()
    target = torch.randint(0, 3, (2, 1, 16, 16, 16)).float()
    if num_outputs is None:
        targets: torch.Tensor | list[torch.Tensor] = target
    else:
        assert len(trainer._get_deep_supervision_scales()) == num_outputs
        targets = [target[..., :: 2**i, :: 2**i, :: 2**i] for i in range(num_outputs)]
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    before = {name: parameter.clone() for name, parameter in trainer.network.named_parameters()}
    loss = trainer.train_step({"data": torch.randn(2, 2, 16, 16, 16), "target": targets})["loss"]
    assert torch.isfinite(torch.as_tensor(loss))
    still = [name for name, new in trainer.network.named_parameters() if torch.equal(before[name], new)]
    # Only the outputs that the loss gives no weight may stay where they were.
    assert all(name.startswith("decoder.seg_layers.") for name in still) and len(still) < len(before) / 2


@pytest.mark.parametrize(("name", "axes"), [("3d_fullres", 3), ("2d", 2)])
@pytest.mark.parametrize("residual", [False, True])
def test_stock_plans_build_a_factorizer(make_trainer: MakeTrainer, name: str, axes: int, residual: bool) -> None:
    plans = example_plans(**{name: configuration(axes, residual=residual)})
    trainer = make_trainer(configuration=name, plans=plans)
    trainer.initialize()
    assert isinstance(trainer.network, Factorizer)
    assert trainer.network.config.ndim == axes
    assert trainer.network.config.features_per_stage == (8, 16, 32)
    (line,) = (line for line in Path(trainer.log_file).read_text().splitlines() if "This trains a Factorizer" in line)
    assert line.rstrip().endswith(
        f"translated from the {'ResidualEncoderUNet' if residual else 'PlainConvUNet'} of the plans"
    )


def test_a_saved_training_loads_into_a_new_trainer(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    file = str(tmp_path / "checkpoint_latest.pth")
    trainer = make_trainer("nnUNetTrainerFactorizer_4epochs_2iters")
    trainer.initialize()
    trainer.current_epoch = 1
    trainer.save_checkpoint(file)
    other = make_trainer("nnUNetTrainerFactorizer_4epochs_2iters")
    other.load_checkpoint(file)
    assert other.current_epoch == 2
    for (name, one), two in zip(trainer.network.state_dict().items(), other.network.state_dict().values(), strict=True):
        torch.testing.assert_close(two, one, rtol=0, atol=0, msg=name)


def test_a_kill_while_saving_leaves_the_checkpoint_before(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "checkpoint_latest.pth"
    trainer = make_trainer()
    trainer.initialize()
    trainer.save_checkpoint(str(file))
    intact = file.read_bytes()

    save = torch.save

    def half_written(content: object, target: object) -> None:
        if not isinstance(target, str):
            return save(content, target)  # to memory
        Path(target).write_bytes(intact[: len(intact) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_checkpoint(str(file))
    assert file.read_bytes() == intact


def test_no_checkpoint_where_they_are_switched_off(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer()
    trainer.initialize()
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    assert not list(tmp_path.glob("checkpoint*"))
