"""A data set with absent channels through the commands: planned, trained on, validated, predicted without channels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from blobs import write_dataset
from in_process import use_threads
from nnunet_folders import use_folders_below
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from workspace import (
    IN_ONE_PROCESS,
    ON_CPU,
    PLANS,
    Workspace,
    checkpoint,
    edit_json,
    read_labels,
    read_probabilities,
    shrink_plans,
)

from factorizer_nnunet import cli

pytestmark = pytest.mark.slow

DATASET, TRAINER = "Dataset504_Missing", "nnUNetTrainerFactorizer_2epochs_2iters_channeldrop"
ABSENT = {"case_0": [1], "case_3": [0]}


def move(images: Path, names: tuple[str, ...], target: Path) -> None:
    target.mkdir()
    for name in names:
        (target / f"{name}.nii.gz").write_bytes((images / f"{name}.nii.gz").read_bytes())


def test_training_and_prediction_without_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the training is a process of its own, as others are tested elsewhere."""
    workspace = Workspace.below(tmp_path / "nnunet")
    use_folders_below(tmp_path / "nnunet", monkeypatch)
    monkeypatch.setenv("nnUNet_compile", "f")
    use_threads(monkeypatch)
    raw = workspace.raw / DATASET
    write_dataset(raw, {"background": 0, "rim": 1, "core": 2})
    for case, channels in ABSENT.items():
        for channel in channels:
            file = str(raw / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
            SimpleITK.WriteImage(SimpleITK.ReadImage(file) * 0, file)
    edit_json(raw / "dataset.json", lambda content: content.update(absent_channels=ABSENT))
    splits = [{"train": [f"case_{number}" for number in range(1, 6)], "val": ["case_0"]}]
    (raw / "splits_final.json").write_text(json.dumps(splits))
    assert cli.main(["plan", "-d", "504", "-c", "3d_fullres", "-np", "1"]) == 0
    edit_json(workspace.plans_file(dataset=DATASET), shrink_plans)
    names = {"trainer": TRAINER, "dataset": DATASET}
    workspace.train("3d_fullres", 0, "--npz", nnUNet_factorizer_augmentation="device", **names)
    model = workspace.model("3d_fullres", **names)
    validation = model / "fold_0" / "validation"
    assert checkpoint(model / "fold_0")["factorizer_channel_drop"] is True

    # As the training's own validation saw it; and a complete case.
    images = tmp_path / "images"
    move(raw / "imagesTr", ("case_0_0000",), images)
    for name in ("unseen_0_0000", "unseen_0_0001"):
        (images / f"{name}.nii.gz").write_bytes((raw / "imagesTs" / f"{name}.nii.gz").read_bytes())
    where = ("-d", "504", "-c", "3d_fullres", "-tr", TRAINER, "-p", PLANS, "-f", "0", *ON_CPU, *IN_ONE_PROCESS)
    assert cli.main(["predict", *where, "-i", str(images), "-o", str(tmp_path / "out"), "--save_probabilities"]) == 0
    done = capsys.readouterr()
    assert "channel 1 (T2) is absent" in done.out + done.err
    # Of so short a training the labels may be background only, the probabilities differ from voxel to voxel.
    predicted, validated = (read_probabilities(folder, "case_0") for folder in (tmp_path / "out", validation))
    np.testing.assert_allclose(predicted, validated, atol=1e-2)
    correlations = [
        np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(predicted, validated, strict=True)
    ]
    assert min(correlations) > 0.98

    # nnU-Net's own predictor takes such a model for complete cases.
    (images / "case_0_0000.nii.gz").unlink()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    (tmp_path / "stock").mkdir()
    predictor.predict_from_files_sequential(str(images), str(tmp_path / "stock"))
    stock, ours = (read_labels(tmp_path / folder / "unseen_0.nii.gz") for folder in ("stock", "out"))
    assert (stock == ours).mean() > 0.99
