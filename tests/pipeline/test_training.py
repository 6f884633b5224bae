"""nnUNetv2_train: our plans and stock plans, all configurations, interrupted and from other weights."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from blobs import CASES
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from workspace import (
    BLOBS,
    EPOCHS,
    IGNORED,
    PLANS,
    REGIONS,
    RESENC_PLANS,
    RESUMED_EPOCHS,
    RESUMED_TRAINER,
    TRAINER,
    Workspace,
    assert_predicted,
    checkpoint,
    logged_epochs,
)

from factorizer_nnunet.core.interrupts import STOPPED
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.training.building import build_network
from factorizer_nnunet.training.schedule import Length, WarmupPolySchedule
from factorizer_nnunet.training.trainer import trainer_variant

pytestmark = pytest.mark.slow


def assert_holds_factorizer(fold: Path, configuration: str, num_classes: int) -> None:
    """The checkpoint's weights are those of a Factorizer, built from the plans that it carries."""
    saved = checkpoint(fold)
    settings = PlansManager(saved["init_args"]["plans"]).get_configuration(configuration)
    cascaded = settings.previous_stage_name is not None
    network = build_network(settings, 2 + cascaded * (num_classes - 1), num_classes, deep_supervision=True)
    assert isinstance(network, Factorizer)
    network.load_state_dict(saved["network_weights"])  # strict: refuses any other key or shape


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("fold", [0, 1])
def test_our_plans_train_and_validate(folds: Workspace, configuration: str, fold: int) -> None:
    folder = folds.model(configuration) / f"fold_{fold}"
    assert logged_epochs(folder) == list(range(EPOCHS))
    assert checkpoint(folder)["trainer_name"] == TRAINER
    assert_holds_factorizer(folder, configuration, num_classes=3)
    validated = CASES[:3] if fold == 0 else CASES[3:]
    assert_predicted(folder / "validation", folds.raw / BLOBS / "imagesTr", validated, {0, 1, 2})


def test_a_stopped_training_continues_within_the_epoch_and_validates_at_last(stopped: SimpleNamespace) -> None:
    assert stopped.statuses == (STOPPED, -signal.SIGKILL)
    assert "checkpoint_latest.pth" in stopped.saved and "checkpoint_final.pth" not in stopped.saved
    assert not stopped.finished
    logs = "".join(log.read_text() for log in sorted(stopped.fold.glob("training_log_*.txt")))
    found = re.search(r"Stopped by SIGTERM in epoch (\d) after (\d+) of 40 training steps; saved", logs)
    assert found is not None
    assert f"continuing after {found[2]} of 40 training steps" in logs or found[2] == "0"
    assert sorted(set(logged_epochs(stopped.fold))) == [0, 1]
    saved = checkpoint(stopped.fold)
    assert {len(values) for values in saved["logging"].values()} == {2}
    assert saved["current_epoch"] == 2
    assert not list(stopped.fold.glob("*.draft"))
    assert (stopped.fold / "validation" / "summary.json").exists()


def test_stock_residual_plans_train_a_factorizer(resenc: Path) -> None:
    assert resenc.parent.name.endswith(f"{RESENC_PLANS}__3d_fullres")
    assert "ResidualEncoderUNet" in (resenc.parent / "plans.json").read_text()
    assert logged_epochs(resenc) == list(range(EPOCHS))
    assert_holds_factorizer(resenc, "3d_fullres", num_classes=3)


def test_a_killed_training_continues_where_it_stopped(interrupted: SimpleNamespace) -> None:
    assert interrupted.returncode == -signal.SIGKILL
    assert "checkpoint_latest.pth" in interrupted.at_kill
    assert "checkpoint_final.pth" not in interrupted.at_kill
    epochs = logged_epochs(interrupted.fold)
    assert epochs.count(0) == 1, "epoch 0 was trained again, so the checkpoint was not used"
    assert sorted(set(epochs)) == list(range(RESUMED_EPOCHS))
    assert not (interrupted.fold / "checkpoint_latest.pth").exists()
    assert not list(interrupted.fold.glob("*.draft"))
    assert_holds_factorizer(interrupted.fold, "3d_fullres", num_classes=3)


def test_a_killed_training_keeps_its_schedule(interrupted: SimpleNamespace) -> None:
    """The rates that nnU-Net logged over both runs are those of one uninterrupted training."""
    saved = checkpoint(interrupted.fold)
    total = RESUMED_EPOCHS * trainer_variant(RESUMED_TRAINER).budget.iterations_per_epoch
    schedule = WarmupPolySchedule(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]),
        1e-3,
        Length(RESUMED_EPOCHS, 2, total // 20),
    )
    expected = [schedule.rate(2 * epoch) for epoch in range(RESUMED_EPOCHS)]
    np.testing.assert_allclose(saved["logging"]["lrs"], expected)
    steps = {int(state["step"]) for state in saved["optimizer_state"]["state"].values()}
    assert max(steps) == total


def test_validation_alone_writes_what_was_asked_for(best: SimpleNamespace) -> None:
    assert best.npz_before == []
    assert best.npz_after == [f"{case}.npz" for case in CASES[3:]]


def test_cascade_stages_train_on_each_other(planned: Workspace, cascade: SimpleNamespace) -> None:
    lowres, fullres = planned.model("3d_lowres"), planned.model("3d_cascade_fullres")
    handed_on = lowres / "predicted_next_stage" / "3d_cascade_fullres"
    assert {path.name.split(".")[0] for path in handed_on.iterdir()} == set(CASES)
    for fold, configuration in ((lowres / "fold_all", "3d_lowres"), (fullres / "fold_0", "3d_cascade_fullres")):
        assert logged_epochs(fold) == list(range(EPOCHS))
        # In the cascade it has inputs for the two labels of the stage before.
        assert_holds_factorizer(fold, configuration, num_classes=3)


def test_pretrained_weights_move_to_a_data_set_of_other_classes(regions: SimpleNamespace) -> None:
    source = checkpoint(regions.source)["network_weights"]
    weights = checkpoint(regions.fold)["network_weights"]
    assert set(weights) == set(source)
    heads = {name for name in weights if ".seg_layers." in name}
    for name in set(weights) - heads:
        torch.testing.assert_close(weights[name], source[name], rtol=0, atol=0, msg=name)
    assert {weights[name].shape[0] for name in heads} == {2}


def test_an_ignore_label_adds_no_output(ignored: Path) -> None:
    assert logged_epochs(ignored) == list(range(EPOCHS))
    assert_holds_factorizer(ignored, "3d_fullres", num_classes=3)


@pytest.mark.parametrize(
    ("dataset", "loss_class", "ignored", "num_classes"),
    [(BLOBS, DC_and_CE_loss, False, 3), (REGIONS, DC_and_BCE_loss, False, 2), (IGNORED, DC_and_CE_loss, True, 3)],
)
def test_loss_and_outputs_follow_the_labels(
    planned: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dataset: str,
    loss_class: type,
    ignored: bool,
    num_classes: int,
) -> None:
    from nnunetv2.run.run_training import get_trainer_from_args

    for name, value in planned.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    trainer = get_trainer_from_args(dataset, "3d_fullres", 0, TRAINER, PLANS, device=torch.device("cpu"))
    trainer.initialize()
    loss = trainer.loss.loss  # inside the wrapper of deep supervision
    assert type(loss) is loss_class
    assert (getattr(loss, "ignore_label", None) is not None) is ignored
    assert isinstance(trainer.network, Factorizer)
    outputs = trainer.network(torch.zeros(1, 2, 12, 24, 24))
    stride = trainer.configuration_manager.pool_op_kernel_sizes[1]
    sizes = [(12, 24, 24), (12 // stride[0], 24 // stride[1], 24 // stride[2])]
    assert [tuple(output.shape[1:]) for output in outputs] == [(num_classes, *size) for size in sizes]
