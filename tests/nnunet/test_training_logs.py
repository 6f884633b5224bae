"""What is read from nnU-Net's logs and checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from training_logs import training_log

from factorizer_nnunet.nnunet.checkpoint import count_weights
from factorizer_nnunet.nnunet.model_folder import FoldFolder
from factorizer_nnunet.nnunet.training_log import read_curve, training_logs

LOG = """
#######################################################################
Please cite the following paper when using nnU-Net:
2026-11-25 10:00:00.000001: Epoch 0 
2026-11-25 10:00:00.000002: Current learning rate: 0.01 
2026-11-25 10:00:09.000003: train_loss -0.1 
2026-11-25 10:00:09.000004: val_loss 0.25 
2026-11-25 10:00:09.000005: Pseudo dice [np.float32(0.5), np.float32(nan), 0.25] 
2026-11-25 10:00:09.000006: Epoch time: 9.5 s 
2026-11-25 10:00:09.000007: Yayy! New best EMA pseudo Dice: 0.375 
2026-11-25 10:00:09.000008: Epoch 1 
2026-11-25 10:00:19.000009: train_loss nan 
2026-11-25 10:00:19.000010: Pseudo dice [nan, nan] 
2026-11-25 10:00:20.000011: Epoch 2 
"""  # noqa: W291


def test_a_log_by_eye(tmp_path: Path) -> None:
    (tmp_path / "fold_3").mkdir()
    (tmp_path / "fold_3" / "training_log_2026_11_25_10_00_00.txt").write_text(LOG)
    curve = read_curve(FoldFolder(tmp_path / "fold_3"))
    assert curve is not None and curve.fold == "3"
    np.testing.assert_array_equal(curve.epochs, [0, 1])  # the third was not finished
    np.testing.assert_array_equal(curve.train_loss, [-0.1, np.nan])
    np.testing.assert_array_equal(curve.val_loss, [0.25, np.nan])
    np.testing.assert_allclose(curve.pseudo_dice, [0.375, np.nan])
    assert curve.hours == 9.5 / 3600


def test_a_continued_training_is_one_curve_and_the_later_log_counts(tmp_path: Path) -> None:
    (tmp_path / "training_log_2026_01_01_00_00_00.txt").write_text(training_log(8, 0.5))
    (tmp_path / "training_log_2026_01_02_00_00_00.txt").write_text(training_log(6, 0.25, first=5))
    curve = read_curve(FoldFolder(tmp_path))
    assert curve is not None
    np.testing.assert_array_equal(curve.epochs, range(11))
    assert curve.train_loss[0] == 0.5
    later = {
        line.split("train_loss ")[1].strip() for line in training_log(6, 0.25, 5).splitlines() if "train_loss" in line
    }
    assert f"{curve.train_loss[5]:.4f}" in later


def test_no_epoch_is_no_curve(tmp_path: Path) -> None:
    assert read_curve(FoldFolder(tmp_path)) is None
    (tmp_path / "training_log_2026_01_01_00_00_00.txt").write_text("nothing yet")
    assert read_curve(FoldFolder(tmp_path)) is None


def test_weights_are_counted_once_and_without_running_code(tmp_path: Path) -> None:
    shared = torch.zeros(4, 3)
    weights = {"encoder.weight": shared, "decoder.encoder.weight": shared, "head": torch.zeros(5)}
    logging = {"mean_fg_dice": [np.float32(0.5), np.float64(0.25), np.int64(3)]}
    torch.save({"network_weights": weights, "logging": logging}, tmp_path / "checkpoint_latest.pth")
    (tmp_path / "checkpoint_best.pth").write_bytes(b"broken")
    assert FoldFolder(tmp_path).last_checkpoint() == tmp_path / "checkpoint_latest.pth"
    assert count_weights(tmp_path / "checkpoint_latest.pth") == 17
    assert count_weights(tmp_path / "checkpoint_best.pth") is None
    torch.save({"network_weights": weights, "trap": Path("x")}, tmp_path / "checkpoint_final.pth")
    assert count_weights(tmp_path / "checkpoint_final.pth") is None  # a class of others is not made


def test_logs_are_in_the_order_of_their_times(tmp_path: Path) -> None:
    names = ["2025_12_31_23_00_00", "2026_2_9_10_00_00", "2026_2_10_09_00_00", "2026_10_1_00_00_00"]
    for name in reversed(names):
        (tmp_path / f"training_log_{name}.txt").touch()
    assert [log.stem.removeprefix("training_log_") for log in training_logs(FoldFolder(tmp_path))] == names
