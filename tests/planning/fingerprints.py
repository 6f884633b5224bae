"""Sixty data sets as nnU-Net's planner sees them: image sizes, spacings, channels, classes and cases, but no images."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_INTENSITIES = {"max": 9, "mean": 5, "median": 5, "min": 1, "percentile_00_5": 2, "percentile_99_5": 8, "std": 1}


@dataclass(frozen=True)
class Fingerprint:
    """A data set of images of about ``shape`` voxels (slices, rows, columns) of ``spacing`` mm, and a size to plan."""

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    cases: int
    channels: int
    classes: int  # including background
    size: str | None = None

    def write(self, raw: Path, preprocessed: Path, number: int) -> str:
        """Write the files that a planner reads below nnU-Net's folders; returns the data set's name."""
        dataset = f"Dataset{number:03d}_{self.name.replace(' ', '')}"
        case = {"images": [f"imagesTr/a_{c:04d}.nii.gz" for c in range(self.channels)], "label": "labelsTr/a.nii.gz"}
        description = {
            "channel_names": {str(c): f"channel {c}" for c in range(self.channels)},
            "labels": {"background": 0, **{f"class {c}": c for c in range(1, self.classes)}},
            "numTraining": self.cases,
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",
            "dataset": {"a": case},
        }
        for folder, name, content in (
            (raw, "dataset.json", description),
            (preprocessed, "dataset_fingerprint.json", self._measured()),
        ):
            (folder / dataset).mkdir(parents=True, exist_ok=True)
            (folder / dataset / name).write_text(json.dumps(content))
        return dataset

    def _measured(self) -> dict[str, object]:
        """Sizes and spacings that vary by a tenth from case to case."""
        rng = np.random.default_rng(0)
        shapes = [
            [max(1, round(v * rng.uniform(0.9, 1.1))) if v > 1 else 1 for v in self.shape] for _ in range(self.cases)
        ]
        return {
            "spacings": [list(self.spacing)] * self.cases,
            "shapes_after_crop": shapes,
            "foreground_intensity_properties_per_channel": {str(c): _INTENSITIES for c in range(self.channels)},
            "median_relative_size_after_cropping": 1.0,
        }


def _slides() -> list[Fingerprint]:
    sizes = [(64, 64), (256, 256), (512, 384), (1024, 1024), (2048, 1536), (200, 1200)]
    kinds = [(50, 1, 2), (2000, 3, 5)]
    return [
        Fingerprint(f"2D {h}x{w} {channels}ch", (1, h, w), (999.0, 1.0, 1.0), cases, channels, classes)
        for (h, w), (cases, channels, classes) in itertools.product(sizes, kinds)
    ]


def _ct() -> list[Fingerprint]:
    slices = [(20, 5.0), (60, 5.0), (120, 2.5), (300, 1.5), (600, 1.0), (900, 0.6)]
    kinds = [(131, 1, 3, None), (40, 2, 15, "M"), (1200, 1, 100, "L")]
    return [
        Fingerprint(f"CT 512x512x{n} {classes}cl", (n, 512, 512), (mm, 0.8, 0.8), cases, channels, classes, size)
        for (n, mm), (cases, channels, classes, size) in itertools.product(slices, kinds)
    ]


def _mr() -> list[Fingerprint]:
    shapes = [
        ("hippocampus", (35, 50, 36), (1.0, 1.0, 1.0)),
        ("brain", (140, 170, 138), (1.0, 1.0, 1.0)),
        ("prostate", (20, 320, 320), (3.6, 0.6, 0.6)),
        ("heart", (9, 250, 220), (5.0, 1.4, 1.4)),
        ("microscopy", (64, 400, 400), (3.0, 0.3, 0.3)),
        ("knee", (160, 384, 384), (0.7, 0.36, 0.36)),
    ]
    kinds = [(4, 1, 2, "S"), (100, 4, 4, None), (260, 2, 3, "XL"), (484, 8, 12, "M"), (1251, 1, 40, "S")]
    return [
        Fingerprint(f"MR {name} {channels}ch {classes}cl", shape, spacing, cases, channels, classes, size)
        for (name, shape, spacing), (cases, channels, classes, size) in itertools.product(shapes, kinds)
    ]


FINGERPRINTS = (*_slides(), *_ct(), *_mr())
