"""The two tasks: real hippocampi, and synthetic lesions that are defined by what lies far away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK
from scipy.ndimage import gaussian_filter

TASKS = ("hippocampus", "far context")  # names that ``load_task`` takes

Case = tuple[np.ndarray, np.ndarray]  # image (channels, *size) in float32, labels (*size)


@dataclass(frozen=True)
class Task:
    """Training and validation cases of one kind, and the patch a network sees of them, in voxels."""

    name: str
    patch_size: tuple[int, int, int]
    classes: int
    train: Sequence[Case]
    validation: Sequence[Case]

    def batch(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Random patches, augmented: images (size, channels, *patch) and labels (size, *patch)."""
        pairs = [self._patch(rng, *self.train[rng.integers(len(self.train))]) for _ in range(size)]
        images, labels = zip(*pairs, strict=True)
        return np.stack(images), np.stack(labels)

    def _patch(self, rng: np.random.Generator, image: np.ndarray, labels: np.ndarray) -> Case:
        corner = [rng.integers(0, s - p + 1) for s, p in zip(labels.shape, self.patch_size, strict=True)]
        where = tuple(slice(c, c + p) for c, p in zip(corner, self.patch_size, strict=True))
        image, labels = image[(slice(None), *where)], labels[where]
        # Gain, offset, noise: light, the same for every form.
        image = image * rng.uniform(0.8, 1.25) + rng.uniform(-0.2, 0.2)
        noise = rng.normal(0, rng.uniform(0, 0.1), image.shape)
        return (image + noise).astype(np.float32), labels.astype(np.int64)


def hippocampus(data: Path, patch_size: tuple[int, int, int]) -> Task:
    """The 100 cases below ``data`` (nnU-Net raw layout, MRI at 1 mm); every fifth validates."""
    cases = []
    for path in sorted((data / "labelsTr").glob("*.nii.gz")):
        image = SimpleITK.GetArrayFromImage(
            SimpleITK.ReadImage(str(data / "imagesTr" / path.name.replace(".nii", "_0000.nii")), SimpleITK.sitkFloat32)
        )
        labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        cases.append(_at_least(patch_size, ((image - image.mean()) / image.std())[None], labels))
    train = [case for index, case in enumerate(cases) if index % 5]
    return Task("hippocampus", patch_size, 3, train, cases[::5])


@cache
def load_task(name: str, data: Path, patch_size: tuple[int, int, int]) -> Task:
    """The task called ``name``, one of TASKS, for patches of this size; read or made once in each process."""
    return hippocampus(data, patch_size) if name == "hippocampus" else replace(far_context(), patch_size=patch_size)


def _at_least(size: Sequence[int], image: np.ndarray, labels: np.ndarray) -> Case:
    """Zeros (the image's mean, and background) around what is smaller than a patch."""
    missing = [max(0, p - s) for p, s in zip(size, labels.shape, strict=True)]
    padding = [(m // 2, m - m // 2) for m in missing]
    return np.pad(image, [(0, 0), *padding]), np.pad(labels, padding)


# Far context: the cue and the spots it decides about lie in opposite quarters of the long axis.
FAR_SIZE = (16, 24, 64)
_REACH = FAR_SIZE[2] // 4


def far_context(num_train: int = 200, num_validation: int = 20) -> Task:
    """Bright and dark spots at one end of the volume; those are lesions that are like the cue at its other end.

    Each half (along the second axis) has a cue of its own, so the mean of the volume does not tell; a spot and its
    cue are at least 32 voxels apart, and nothing near a spot says whether it is a lesion.
    """
    cases = [_far_case(np.random.default_rng([7, index])) for index in range(num_train + num_validation)]
    return Task("far context", FAR_SIZE, 2, cases[:num_train], cases[num_train:])


def _far_case(rng: np.random.Generator) -> Case:
    image = gaussian_filter(rng.normal(size=FAR_SIZE), 1.5)
    image = 0.3 * image / image.std() + rng.normal(0, 0.2, FAR_SIZE)
    labels = np.zeros(FAR_SIZE, np.int64)
    half = FAR_SIZE[1] // 2
    for start in (0, half):
        polarity = rng.choice((-1, 1))
        cue = _ball(rng, (4, FAR_SIZE[0] - 4), (start + 4, start + half - 4), (4, _REACH - 4), radius=3.5)
        image[cue] += 2 * polarity
        for sign in (-1, -1, 1, 1):
            radius = rng.uniform(1.5, 2.5)
            bounds = ((3, FAR_SIZE[0] - 3), (start + 2, start + half - 2), (FAR_SIZE[2] - _REACH + 3, FAR_SIZE[2] - 3))
            spot = _ball(rng, *bounds, radius=radius) & (labels == 0) & (np.abs(image) < 2)
            image[spot] += 2 * sign
            labels[spot] = int(sign == polarity)
    return image[None].astype(np.float32), labels


def _ball(rng: np.random.Generator, *bounds: tuple[int, int], radius: float) -> np.ndarray:
    """Mask of a ball whose centre is drawn within ``bounds``."""
    axes = np.meshgrid(
        *(np.arange(size) - rng.uniform(*bound) for size, bound in zip(FAR_SIZE, bounds, strict=True)), indexing="ij"
    )
    return sum(axis**2 for axis in axes) < radius**2


def window_starts(size: int, patch: int) -> list[int]:
    """First voxels of patches that cover an axis with about half overlap."""
    count = 1 if size == patch else math.ceil((size - patch) / (patch / 2)) + 1
    return [round(start) for start in np.linspace(0, size - patch, count)]
