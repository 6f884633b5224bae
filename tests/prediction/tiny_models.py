"""Untrained models in nnU-Net's folders and images for them: predictions need no more to be compared."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from preprocessed_case import save_case
from stock_plans import configuration

from factorizer_nnunet.prediction.pipeline import PredictionOutcome
from factorizer_nnunet.prediction.predict import predict
from factorizer_nnunet.prediction.request import PredictionRequest

NAME, PLANS = "Dataset509_Untrained", "nnUNetPlans"
FACTORIZER, STOCK = "nnUNetTrainerFactorizer_1epochs", "nnUNetTrainer"
CASES = ("a", "b", "c")
DATASET = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "rim": 1, "core": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


def settings(ndim: int) -> dict[str, Any]:
    """A configuration with a narrow U-Net of nnU-Net's."""
    axes = slice(3 - ndim, None)
    stock = configuration(ndim)
    narrow = {"features_per_stage": [8, 16, 16], "n_conv_per_stage": [1] * 3, "n_conv_per_stage_decoder": [1] * 2}
    stock["architecture"]["arch_kwargs"] |= narrow
    return {**stock, "patch_size": [8, 16, 16][axes], "spacing": [3.0, 2.0, 1.0][axes]}


def plans() -> dict[str, Any]:
    lowres = {**settings(3), "data_identifier": "lowres", "spacing": [3.0, 3.0, 2.0], "next_stage": "3d_cascade"}
    return {
        "dataset_name": NAME,
        "plans_name": PLANS,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": settings(2),
            "3d_fullres": settings(3),
            "3d_lowres": lowres,
            "3d_cascade": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}, "1": {}},
    }


def write_dataset(root: Path) -> None:
    """Plans in ``nnUNet_preprocessed`` and three images in ``images`` below ``root``."""
    for name, content in ((f"{PLANS}.json", plans()), ("dataset.json", DATASET), ("dataset_fingerprint.json", {})):
        file = root / "nnUNet_preprocessed" / NAME / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    for settings in plans()["configurations"].values():  # nnU-Net looks at its files to find out how cases are stored
        stored = file.parent / settings.get("data_identifier", "nnUNetPlans_3d")
        if not stored.exists():  # the cascade has those of its last stage
            stored.mkdir()
            for number in range(5):  # one for each fold
                save_case(stored, f"case{number}")
    for number, case in enumerate(CASES):
        for channel in range(2):
            write_image(root / "images" / f"{case}_{channel:04d}.nii.gz", number + 10 * channel)


def write_image(file: Path, seed: int) -> None:
    array = np.random.default_rng(seed).normal(size=(7, 17, 20)).astype(np.float32)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.7, 3.2))
    file.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(file))


def write_model(root: Path, trainer: str = FACTORIZER, configuration: str = "3d_fullres", folds: int = 1) -> Path:
    """The folder of a model, each fold with weights of its own as the trainer's start has them."""
    folder = root / "nnUNet_results" / NAME / f"{trainer}__{PLANS}__{configuration}"
    for fold in range(folds):
        torch.manual_seed(fold)
        made = get_trainer_from_args(NAME, configuration, fold, trainer, PLANS, device=torch.device("cpu"))
        made.initialize()
        made.logger.log("mean_fg_dice", np.float32(0.5), 0)  # logs hold numbers of numpy
        made._best_ema = np.float64(0.5)
        made.save_checkpoint(os.path.join(made.output_folder, "checkpoint_final.pth"))
    (folder / "plans.json").write_text(json.dumps(made.plans_manager.plans))
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    return folder


def train_with_files(model: Path) -> None:
    """Let the checkpoints of a model say that they were trained with the files in its folder."""
    arguments = {key: json.loads((model / f"{key}.json").read_text()) for key in ("plans", "dataset")}
    for file in model.glob("fold_*/checkpoint_final.pth"):
        content = torch.load(file, weights_only=False)
        content["init_args"] |= {"plans": arguments["plans"], "dataset_json": arguments["dataset"]}
        torch.save(content, file)


def write_cascade(root: Path, trainer: str = FACTORIZER) -> Path:
    """The second stage of a cascade; the first must exist. What it predicted of training cases is not used here."""
    lowres = root / "nnUNet_results" / NAME / f"{trainer}__{PLANS}__3d_lowres"
    predicted_next = lowres / "predicted_next_stage" / "3d_cascade"
    predicted_next.mkdir(parents=True)
    for stored in (root / "nnUNet_preprocessed" / NAME / "nnUNetPlans_3d").glob("*.pkl"):
        # without these, no cascade is trained
        nnUNetDatasetBlosc2.save_seg(np.ones((1, 4, 4, 4), np.uint8), str(predicted_next / stored.stem))
    return write_model(root, trainer, "3d_cascade")


def run_predict(root: Path, model: Path, **changes: Any) -> PredictionOutcome:
    """Predict in this process, on the CPU, what is in ``images``."""
    request = {
        "model": model,
        "images": root / "images",
        "out": root / "out",
        "folds": ("0",),
        "device": "cpu",
        "preprocessing_processes": 0,
        "export_processes": 0,
        "progress_bar": False,
        **changes,
    }
    return predict(PredictionRequest(**request))


def assert_equal_within_rounding(ours: np.ndarray, nnunets: np.ndarray) -> None:
    """nnU-Net interpolates logits in double precision before it rounds them to half precision; predict in single."""
    np.testing.assert_allclose(ours, nnunets, atol=5e-3, strict=True)
    assert (np.abs(ours - nnunets) < 1e-6).mean() > 0.95
