"""A tiny trained model, as a folder and as a zip, and a raw data set with other channels and classes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stock_plans
import torch
from blobs import write_dataset
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.nnunet.checkpoint import checkpoint_content
from factorizer_nnunet.prediction.model import network_of

SOURCE, TARGET = "Dataset004_Source", "Dataset005_Target"
FACTORIZER, STOCK = "nnUNetTrainerFactorizer", "nnUNetTrainer"
CHANNELS, LABELS = ("T1", "T1ce", "FLAIR"), {"background": 0, "rim": 1, "core": 2}


def source_plans(ndim: int = 3, channels: int = len(CHANNELS), **changes: Any) -> dict[str, Any]:
    settings = stock_plans.configuration(ndim)
    narrow = {"features_per_stage": [8, 16, 16], "n_conv_per_stage": [1] * 3, "n_conv_per_stage_decoder": [1] * 2}
    settings["architecture"]["arch_kwargs"] |= narrow
    settings |= {"normalization_schemes": ["ZScoreNormalization"] * channels, "use_mask_for_norm": [False] * channels}
    return {
        "dataset_name": SOURCE,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"2d" if ndim == 2 else "3d_fullres": {**settings, **changes}},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(number): {"mean": number} for number in range(channels)},
    }


def write_source(
    results: Path,
    trainer: str = FACTORIZER,
    *,
    channels: Sequence[str] = CHANNELS,
    labels: dict[str, Any] | None = None,
    plans: dict[str, Any] | None = None,
    channel_drop: bool = False,
) -> Path:
    """The folder of a model with random weights in its fold 0, below ``results``."""
    plans = source_plans(channels=len(channels)) if plans is None else plans
    (configuration,) = plans["configurations"]
    labels = LABELS if labels is None else labels
    regions = {"regions_class_order": [1, 2]} if any(isinstance(value, list) for value in labels.values()) else {}
    dataset = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels,
        "numTraining": 5,
        "file_ending": ".nii.gz",
        **regions,
    }
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    torch.manual_seed(0)
    outputs = manager.get_label_manager(dataset).num_segmentation_heads
    inputs = determine_num_input_channels(manager, configuration, dataset)
    network = network_of(trainer, manager, settings, inputs, outputs, "the test")
    folder = results / SOURCE / f"{trainer}__nnUNetPlans__{configuration}"
    (folder / "fold_0").mkdir(parents=True)
    content = checkpoint_content(
        network.state_dict(), trainer, plans, configuration, "0", dataset, (0, 1), channel_drop=channel_drop
    )
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    for name, value in (("plans.json", plans), ("dataset.json", dataset)):
        (folder / name).write_text(json.dumps(value))
    return folder


def write_target(raw: Path, channels: Sequence[str] = ("FLAIR", "T1c"), labels: dict[str, Any] | None = None) -> Path:
    """A raw data set of two channels."""
    folder = raw / TARGET
    write_dataset(folder, {"background": 0, "edema": 1, "core": 2} if labels is None else labels)
    content = json.loads((folder / "dataset.json").read_text())
    content["channel_names"] = {str(number): name for number, name in enumerate(channels)}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def zipped(model: Path, file: Path) -> Path:
    """The model as ``nnUNetv2_export_model_to_zip`` writes it."""
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(model.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(model.parents[1]))
    return file


def snapshot(root: Path) -> dict[str, bytes]:
    """All files of nnU-Net's folders."""
    return {str(path): path.read_bytes() for path in sorted(root.glob("nnUNet_*/**/*")) if path.is_file()}
