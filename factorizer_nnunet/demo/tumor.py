"""An irregular glioma grown into a drawn brain: necrosis, an enhancing rim around it, edema around both."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.measure import label as connected_components

from factorizer_nnunet.demo.anatomy import Tissue, centred_grid, ellipsoid, smooth_noise

BRATS_LABEL = {Tissue.NECROSIS: 1, Tissue.EDEMA: 2, Tissue.ENHANCING: 4}  # raw values of the BraTS releases up to 2021


def _piece_with(mask: np.ndarray, voxel: tuple[int, ...]) -> np.ndarray:
    """Return the connected piece of `mask` around `voxel`; a tumor has no detached pieces."""
    pieces = connected_components(mask, connectivity=1)
    return pieces == pieces[voxel]


def _seed_voxel(rng: np.random.Generator, tissue: np.ndarray) -> tuple[int, ...]:
    """Pick a voxel of white matter at medium depth, where gliomas grow: neither at the surface nor in the middle."""
    depth = distance_transform_edt(tissue != Tissue.OUTSIDE)
    candidates = np.argwhere((tissue == Tissue.WHITE) & (depth > 5) & (depth < 10))
    return tuple(int(index) for index in candidates[rng.integers(len(candidates))])


def grow_tumor(rng: np.random.Generator, tissue: np.ndarray) -> np.ndarray:
    """Grow a tumor into `tissue` (z, y, x), which is left as it is; returns the changed copy.

    Edema follows white matter and hardly enters the cortex; nothing grows into fluid or out of the brain. The parts are
    nested as BraTS regions require: none is empty, and the core lies inside the whole tumor.
    """
    shape = tissue.shape
    seed = _seed_voxel(rng, tissue)
    grid = centred_grid(shape)
    centre = grid[:, seed[0], seed[1], seed[2]]
    radius = rng.uniform(5.0, 6.8)
    stretch = rng.uniform(0.8, 1.25, 3)

    # The weight of the noise grows with the distance from the seed, so that it cannot cut the centre away.
    distance = ellipsoid(grid, centre, radius * stretch)
    core_field = distance * (1 + 0.22 * smooth_noise(rng, shape, 2.2))
    edema_field = ellipsoid(grid, centre + rng.uniform(-1.5, 1.5, 3), radius * rng.uniform(0.8, 1.25, 3))
    edema_field *= 1 + 0.30 * smooth_noise(rng, shape, 3.0)

    can_hold = (tissue != Tissue.OUTSIDE) & (tissue != Tissue.FLUID)
    core = _piece_with(can_hold & (core_field < 1) | (distance == 0), seed)
    spread = np.where(tissue == Tissue.GREY, 1.25, rng.uniform(1.45, 1.8))
    whole = _piece_with(can_hold & (edema_field < spread) | core, seed)

    rim_width = rng.uniform(1.9, 2.9) + 0.4 * smooth_noise(rng, shape, 2.0)
    necrosis = core & (distance_transform_edt(core) > rim_width)
    grown = tissue.copy()
    grown[whole] = Tissue.EDEMA
    grown[core] = Tissue.ENHANCING
    grown[necrosis] = Tissue.NECROSIS
    return grown


def brats_labels(tissue: np.ndarray) -> np.ndarray:
    """Return the BraTS segmentation of a tissue map, (z, y, x) uint8 with values 0, 1, 2, 4."""
    labels = np.zeros(tissue.shape, dtype=np.uint8)
    for part, value in BRATS_LABEL.items():
        labels[tissue == part] = value
    return labels
