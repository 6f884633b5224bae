"""A data set small enough for a CPU, in nnU-Net's raw layout: two nested ellipsoids in noise, in two channels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK

CASES = tuple(f"case_{number}" for number in range(6))
TEST_CASES = ("unseen_0", "unseen_1")
# Anisotropic voxels, a rotated grid and an origin other than 0, which a prediction must take over from its image.
SPACING = (1.0, 1.1, 2.4)
ORIGIN = (12.0, -30.5, 7.0)
TURN = np.deg2rad(10)
DIRECTION = (np.cos(TURN), -np.sin(TURN), 0.0, np.sin(TURN), np.cos(TURN), 0.0, 0.0, 0.0, 1.0)
IGNORE = 3


def write_dataset(folder: Path, labels: Mapping[str, object], *, ignore: bool = False) -> None:
    """Training and test cases with ``dataset.json``.

    Args:
        folder: the data set folder, ``DatasetXXX_Name``.
        labels: the ``labels`` of ``dataset.json``; in the files, 1 is the outer and 2 the inner ellipsoid.
        ignore: whether the first and last slices are left unannotated.
    """
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for number, case in enumerate(CASES + TEST_CASES):
        rng = np.random.default_rng(number)
        truth = _ellipsoids(rng)
        seen = [truth == 1, truth == 2]
        images = folder / ("imagesTs" if case in TEST_CASES else "imagesTr")
        for channel, bright in enumerate(seen):
            image = rng.normal(10, 1, truth.shape) + 5 * (truth > 0) + 5 * bright
            _write(images / f"{case}_{channel:04d}.nii.gz", image.astype(np.float32))
        if ignore:
            truth[[0, 1, -1]] = IGNORE
        if case in CASES:
            _write(folder / "labelsTr" / f"{case}.nii.gz", truth)
    regions = [value for value in labels.values() if isinstance(value, list)]
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": labels,
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
        **({"regions_class_order": [1, 2]} if regions else {}),
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def _ellipsoids(rng: np.random.Generator) -> np.ndarray:
    """Labels of one case, (z, y, x): 2 within 1 within 0; the size differs by case."""
    shape = np.array([14, 27, 25]) + rng.integers(0, 4, 3)
    center = shape / 2 + rng.uniform(-2, 2, 3)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    distance = np.linalg.norm((grid - center) / (shape * rng.uniform(0.28, 0.36)), axis=-1)
    return ((distance < 1).astype(np.uint8) + (distance < 0.6)).astype(np.uint8)


def _write(path: Path, array: np.ndarray) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection(DIRECTION)
    SimpleITK.WriteImage(image, str(path))
