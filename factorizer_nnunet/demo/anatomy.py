"""A brain without a tumor: the tissue of each voxel, drawn from noise.

Axes are (z, y, x) throughout, as in SimpleITK's arrays: z up, y towards the back of the head, x to the left.
The shapes are those of a skull-stripped head at low resolution: an ellipsoid with an uneven surface, a folded ribbon of
grey matter with fluid in its sulci, white matter inside, two deep grey nuclei, two ventricles. Vessels that take up
contrast agent and bright spots of old gliosis are included because they look like tumor in one modality.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter


class Tissue(IntEnum):
    """The tissue of a voxel; the values index the phantom's contrast table."""

    OUTSIDE = 0
    FLUID = 1
    GREY = 2
    WHITE = 3
    VESSEL = 4
    GLIOSIS = 5
    EDEMA = 6
    NECROSIS = 7
    ENHANCING = 8


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> np.ndarray:
    """Return Gaussian noise of correlation length `sigma` voxels, mean 0 and standard deviation 1 over the volume."""
    noise = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return (noise - noise.mean()) / noise.std()


def centred_grid(shape: tuple[int, int, int]) -> np.ndarray:
    """Return the coordinates of all voxels relative to the middle of the volume, (3, z, y, x), in voxels."""
    middle = (np.asarray(shape) - 1) / 2
    return np.indices(shape) - middle[:, None, None, None]


def ellipsoid(grid: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return each voxel's distance from `centre` in units of `radii`: below 1 inside, (z, y, x)."""
    return np.sqrt((((grid - centre[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(axis=0))


def draw_brain(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Draw one healthy brain; returns an array (z, y, x) of `Tissue` values, uint8."""
    grid = centred_grid(shape)
    radii = np.asarray(shape) * np.array([0.37, 0.39, 0.37]) * rng.uniform(0.94, 1.03, 3)
    surface = ellipsoid(grid, rng.uniform(-1, 1, 3), radii) + 0.03 * smooth_noise(rng, shape, 4)
    brain = surface < 1
    depth = distance_transform_edt(brain)

    tissue = np.where(brain, Tissue.WHITE, Tissue.OUTSIDE).astype(np.uint8)
    folds = smooth_noise(rng, shape, 1.4)
    tissue[brain & (depth < 3.2 + 1.5 * folds)] = Tissue.GREY
    tissue[brain & (depth < 1.2 + 1.4 * smooth_noise(rng, shape, 1.2)) & (folds > 0.3)] = Tissue.FLUID

    size = radii / np.array([14.8, 18.7, 14.8])  # scales positions given in voxels of a typical brain
    for side in (-1, 1):
        nucleus = ellipsoid(grid, size * np.array([-1.5, 0.5, side * 4.0]), size * np.array([2.6, 4.0, 2.0]))
        tissue[nucleus + 0.12 * folds < 1] = Tissue.GREY
        ventricle = ellipsoid(
            grid, size * np.array([2.0, rng.uniform(-1, 1), side * 2.4]), size * np.array([2.2, 6.5, 1.5])
        )
        ventricle += 0.15 * smooth_noise(rng, shape, 1.5)
        tissue[(ventricle < 1.45) & (smooth_noise(rng, shape, 1.5) > 0.7)] = Tissue.GLIOSIS  # caps of the ventricles
        tissue[ventricle < rng.uniform(0.9, 1.1)] = Tissue.FLUID

    spots = smooth_noise(rng, shape, 1.3)
    tissue[(tissue == Tissue.WHITE) & (spots > rng.uniform(2.0, 2.5))] = Tissue.GLIOSIS
    # A vessel runs where two noise fields cross zero together: a thin curved line.
    thin = np.hypot(smooth_noise(rng, shape, 3.5), smooth_noise(rng, shape, 3.5))
    tissue[brain & (thin < rng.uniform(0.13, 0.18))] = Tissue.VESSEL
    return tissue
