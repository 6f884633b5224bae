"""Small preprocessed cases and loaders with nnU-Net's own pipelines, in each form that a data set can have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

CASES = {"small": (20, 17, 22), "large": (50, 44, 38)}  # one smaller than most patches


@dataclass(frozen=True)
class Form:
    """What a data set and its plans ask of the pipeline."""

    patch: tuple[int, ...]
    cascade: bool = False
    regions: bool = False
    ignore: bool = False
    masked: bool = False
    deep_supervision: bool = True
    mirrored: tuple[int, ...] | None = None  # axes, if they are not those of nnU-Net's usual trainer


FORMS = {
    "3D": Form((24, 32, 20)),
    "2D": Form((32, 28)),
    "2D, elongated": Form((40, 20)),
    "anisotropic": Form((8, 32, 28)),  # dummy 2D
    "cascade": Form((20, 24, 20), cascade=True),
    "regions": Form((20, 24, 20), regions=True, masked=True),
    "ignore label": Form((20, 24, 20), ignore=True),
    "regions, ignore label, cascade": Form((16, 24, 20), cascade=True, regions=True, ignore=True, masked=True),
    "one output": Form((16, 24, 20), deep_supervision=False),
    "two axes mirrored": Form((16, 24, 20), mirrored=(0, 1)),
    "not mirrored": Form((16, 24, 20), mirrored=()),
}


def save_cases(folder: Path, cases: Sequence[str] = tuple(CASES), highest: int = 3) -> Path:
    """Images of two channels, labels from -1 in blocks, and a previous stage's labels."""
    for made in (folder, previous_stage(folder)):
        made.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(cases):
        rng = np.random.default_rng(number)
        shape = CASES.get(name, CASES["small"])
        data = rng.normal(size=(2, *shape)).astype(np.float32)
        data += np.linspace(-2, 2, shape[0], dtype=np.float32)[:, None, None]
        labels, previous = (blocks(rng, shape, low, highest) for low in (-1, 0))
        locations: dict[object, np.ndarray] = {label: np.argwhere(labels[None] == label) for label in (1, 2, 3)}
        locations[(1, 2)] = np.argwhere(np.isin(labels[None], (1, 2)))
        for annotated in ((-1, 0, 1, 2), (-1, 0, 1, 2, 3)):
            locations[annotated] = np.argwhere(np.isin(labels[None], annotated))
        layout = {"chunks": data.shape, "blocks": (1, 8, 8, 8)}
        seg_layout = {"chunks_seg": (1, *shape), "blocks_seg": (1, 8, 8, 8)}
        properties = {"class_locations": locations}
        nnUNetDatasetBlosc2.save_case(data, labels[None], properties, str(folder / name), **layout, **seg_layout)
        nnUNetDatasetBlosc2.save_seg(previous, str(previous_stage(folder) / name), shape, (8, 8, 8))
    return folder


def previous_stage(folder: Path) -> Path:
    """Where the labels of a cascade's previous stage lie."""
    return folder.with_name(f"{folder.name}_previous")


def blocks(rng: np.random.Generator, shape: Sequence[int], low: int, highest: int) -> np.ndarray:
    """Random labels in cubes of 5 voxels."""
    labels = rng.integers(low, highest + 1, size=[size // 5 + 1 for size in shape]).astype(np.int8)
    for axis in range(len(shape)):
        labels = labels.repeat(5, axis)
    return labels[tuple(slice(size) for size in shape)]


def pipeline_of(form: Form) -> tuple[BasicTransform, list[int]]:
    """The pipeline of nnU-Net's trainer, and the size of the region that its loader reads."""
    settings = SimpleNamespace(patch_size=list(form.patch))
    trainer = SimpleNamespace(configuration_manager=settings, print_to_log_file=lambda *_: None)
    rotation, dummy_2d, region, axes = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
    scales = [[1.0] * len(form.patch), [0.5] * len(form.patch)] if form.deep_supervision else None
    pipeline = nnUNetTrainer.get_training_transforms(
        list(form.patch),
        rotation,
        scales,
        axes if form.mirrored is None else form.mirrored,
        dummy_2d,
        use_mask_for_norm=[form.masked, False],
        is_cascaded=form.cascade,
        foreground_labels=[1, 2],
        regions=[(1, 2), 2] if form.regions else None,
        ignore_label=3 if form.ignore else None,
    )
    return pipeline, list(region)


def loader_of(form: Form, folder: Path, batch_size: int = 1, foreground: float = 0.33) -> nnUNetDataLoader:
    """As nnU-Net's trainer makes it for training batches; ``foreground`` is the share of samples that must have some.

    With one sample a batch, nnU-Net's share of 0.33 gives none.
    """
    pipeline, region = pipeline_of(form)
    labels: dict[str, int | tuple[int, ...]] = {"background": 0, "whole": (1, 2), "core": 2}
    if not form.regions:
        labels = {"background": 0, "rim": 1, "core": 2, "rest": 3}
    if form.ignore:
        labels = {**{name: label for name, label in labels.items() if name != "rest"}, "ignore": 3}
    manager = LabelManager(labels, (1, 2) if form.regions else None)
    previous = str(previous_stage(folder)) if form.cascade else None
    dataset = nnUNetDatasetBlosc2(str(folder), list(CASES), previous)
    patch = list(form.patch)
    return nnUNetDataLoader(dataset, batch_size, region, patch, manager, foreground, None, None, transforms=pipeline)
