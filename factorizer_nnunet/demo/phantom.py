"""Synthetic brain-tumor patients: four MR modalities and the true segmentation, in the layout of BraTS 2021.

The task has to be learned: bias field and noise are as large as the differences between tissues, and in every single
modality each tumor part looks like some healthy tissue (edema on FLAIR like gliosis and cortex, the enhancing rim on
T1ce like vessels, necrosis on T1 and T2 like fluid). Nothing here is a physical simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import gaussian_filter

from factorizer_nnunet.dataset_conversion.releases import RELEASES
from factorizer_nnunet.demo.anatomy import Tissue, draw_brain, smooth_noise
from factorizer_nnunet.demo.tumor import brats_labels, grow_tumor

SHAPE = (40, 48, 40)  # voxels (z, y, x)
SPACING_MM = 4.0  # the same on all axes: a head of common size on this coarse grid
MODALITIES = ("t1", "t1ce", "t2", "flair")  # spelled as in the file names of BraTS 2021
TRAINING_ROOT = "RSNA_ASNR_MICCAI_BraTS2021_TrainingData_16July2021"
VALIDATION_ROOT = "RSNA_ASNR_MICCAI_BraTS2021_ValidationData"

# Mean signal of each tissue in T1, T1ce, T2 and FLAIR, in units of bright white matter.
CONTRAST: dict[Tissue, tuple[float, float, float, float]] = {
    Tissue.OUTSIDE: (0.00, 0.00, 0.00, 0.00),
    Tissue.FLUID: (0.30, 0.30, 1.00, 0.25),
    Tissue.GREY: (0.58, 0.62, 0.66, 0.68),
    Tissue.WHITE: (0.80, 0.83, 0.48, 0.52),
    Tissue.VESSEL: (0.62, 1.12, 0.40, 0.45),
    Tissue.GLIOSIS: (0.66, 0.70, 0.84, 0.88),
    Tissue.EDEMA: (0.64, 0.68, 0.82, 0.86),
    Tissue.NECROSIS: (0.42, 0.46, 0.88, 0.62),
    Tissue.ENHANCING: (0.60, 1.02, 0.72, 0.76),
}


@dataclass(frozen=True)
class Patient:
    """One synthetic patient: `images` (4, z, y, x) int16 in the order of `MODALITIES`, `labels` (z, y, x) uint8."""

    images: np.ndarray
    labels: np.ndarray


def draw_patient(rng: np.random.Generator, shape: tuple[int, int, int] = SHAPE) -> Patient:
    """Draw one patient from `rng`; everything outside the brain is exactly 0, as after skull stripping."""
    tissue = grow_tumor(rng, draw_brain(rng, shape))
    brain = tissue != Tissue.OUTSIDE
    table = np.array([CONTRAST[part] for part in Tissue])
    table = table * (1 + 0.05 * rng.standard_normal(table.shape))  # no two scanners and tumors look the same
    images = [_acquire(rng, table[:, m][tissue], brain) for m in range(len(MODALITIES))]
    return Patient(images=np.stack(images), labels=brats_labels(tissue))


def _acquire(rng: np.random.Generator, signal: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Turn ideal signal into an image: partial volume, texture, bias field, Rician noise, the scanner's own scale."""
    shape = signal.shape
    blurred = gaussian_filter(signal, 0.55)
    textured = blurred * (1 + 0.05 * smooth_noise(rng, shape, 1.0))
    bias = np.exp(0.16 * smooth_noise(rng, shape, 12))
    real, imaginary = 0.07 * rng.standard_normal((2, *shape))
    magnitude = np.hypot(textured * bias + real, imaginary)
    scaled = magnitude * rng.uniform(300, 900)
    return np.where(brain, np.maximum(np.rint(scaled), 1), 0).astype(np.int16)


def write_set(folder: Path, *, training: int, held_out: int, seed: int) -> None:
    """Write a data set like BraTS 2021 below `folder`, plus the labels of the held-out patients, which BraTS keeps.

    Training patients lie below `TRAINING_ROOT` with their segmentation (0, 1, 2, 4), held-out ones below
    `VALIDATION_ROOT` without. `folder/truth` gets the segmentations of the latter with the names and label values that
    predictions have. Each patient has its own generator, so that patient k looks the same whatever the size of the set.
    """
    truth = folder / "truth"
    truth.mkdir(parents=True)
    label_map = RELEASES["brats2021"].schemes[0].labels
    for number in range(training + held_out):
        patient = draw_patient(np.random.default_rng([seed, number]))
        case = f"BraTS2021_{number:05d}"
        is_training = number < training
        case_folder = folder / (TRAINING_ROOT if is_training else VALIDATION_ROOT) / case
        case_folder.mkdir(parents=True)
        for modality, image in zip(MODALITIES, patient.images, strict=True):
            _write(image, case_folder / f"{case}_{modality}.nii.gz")
        if is_training:
            _write(patient.labels, case_folder / f"{case}_seg.nii.gz")
        else:
            _write(label_map.apply(patient.labels), truth / f"{case}.nii.gz")


def _write(array: np.ndarray, path: Path) -> None:
    """Write with the orientation of BraTS: NIfTI affine diag(-s, -s, s), first voxel at y = 239 mm."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((SPACING_MM,) * 3)
    image.SetOrigin((0.0, -239.0, 0.0))  # SimpleITK counts x and y the other way round than NIfTI
    sitk.WriteImage(image, str(path), useCompression=True)
