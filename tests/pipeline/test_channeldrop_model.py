"""A data set with absent channels through the commands: planned, trained on, validated, predicted without channels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import SimpleITK
from blobs import write_dataset
from workspace import IN_ONE_PROCESS, ON_CPU, PLANS, Workspace, checkpoint, edit_json, read_labels, shrink_plans

pytestmark = pytest.mark.slow

DATASET, TRAINER = "Dataset504_Missing", "nnUNetTrainerFactorizer_2epochs_2iters_channeldrop"
ABSENT = {"case_0": [1], "case_3": [0]}


def move(images: Path, names: tuple[str, ...], target: Path) -> None:
    target.mkdir()
    for name in names:
        (target / f"{name}.nii.gz").write_bytes((images / f"{name}.nii.gz").read_bytes())


def test_training_and_prediction_without_channels(tmp_path: Path) -> None:
    workspace = Workspace.below(tmp_path / "nnunet")
    raw = workspace.raw / DATASET
    write_dataset(raw, {"background": 0, "rim": 1, "core": 2})
    for case, channels in ABSENT.items():
        for channel in channels:
            file = str(raw / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
            SimpleITK.WriteImage(SimpleITK.ReadImage(file) * 0, file)
    edit_json(raw / "dataset.json", lambda content: content.update(absent_channels=ABSENT))
    splits = [{"train": [f"case_{number}" for number in range(1, 6)], "val": ["case_0"]}]
    (raw / "splits_final.json").write_text(json.dumps(splits))
    workspace.run("factorizer-nnunet", "plan", "-d", 504, "-c", "3d_fullres", "-np", 1)
    edit_json(workspace.plans_file(dataset=DATASET), shrink_plans)
    names = {"trainer": TRAINER, "dataset": DATASET}
    workspace.train("3d_fullres", 0, nnUNet_factorizer_augmentation="device", **names)
    model = workspace.model("3d_fullres", **names)
    assert checkpoint(model / "fold_0")["factorizer_channel_drop"] is True

    # As the training's own validation saw it; and a complete case.
    images = tmp_path / "images"
    move(raw / "imagesTr", ("case_0_0000",), images)
    for name in ("unseen_0_0000", "unseen_0_0001"):
        (images / f"{name}.nii.gz").write_bytes((raw / "imagesTs" / f"{name}.nii.gz").read_bytes())
    where = ("-d", 504, "-c", "3d_fullres", "-tr", TRAINER, "-p", PLANS, "-f", 0, *ON_CPU)
    done = workspace.run("factorizer-nnunet", "predict", *where, "-i", images, "-o", tmp_path / "out", *IN_ONE_PROCESS)
    assert "channel 1 (T2) is absent" in done.stdout + done.stderr
    predicted = read_labels(tmp_path / "out" / "case_0.nii.gz")
    validated = read_labels(model / "fold_0" / "validation" / "case_0.nii.gz")
    assert (predicted == validated).mean() > 0.99 and len(set(predicted.flat)) > 1

    # The stock command takes such a model for complete cases.
    (images / "case_0_0000.nii.gz").unlink()
    workspace.run("nnUNetv2_predict", *where, "-i", images, "-o", tmp_path / "stock", *IN_ONE_PROCESS)
    stock, ours = (read_labels(tmp_path / folder / "unseen_0.nii.gz") for folder in ("stock", "out"))
    assert (stock == ours).mean() > 0.99
