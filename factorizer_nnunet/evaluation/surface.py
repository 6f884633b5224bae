"""Surfaces of masks and the distances between them, weighted by area.

A surface runs between the voxels of a mask and the others. It is made of one element at every corner where voxels of
both kinds meet; its area is that of the marching cubes triangles (Lorensen and Cline, 1987) between the centres of the
eight voxels around it. So a distance does not depend on how finely a side is sampled, and a mask of one voxel has a
surface, too. This is the definition of Nikolov et al. (2018, arXiv 1809.04430), with which BraTS scores since 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

CROWDED = 1 / 40  # elements per voxel of their box, from which on a distance map beats a search tree
_CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]


@dataclass(frozen=True)
class Surface:
    """The elements of a mask's surface."""

    corners: np.ndarray  # (elements, 3) integers, in voxels from a corner of the image
    areas: np.ndarray  # (elements,) mm²

    def __len__(self) -> int:
        return len(self.areas)


@dataclass(frozen=True)
class SurfaceDistances:
    """How far the elements of two surfaces are from the other one; both have elements."""

    distances: tuple[np.ndarray, np.ndarray]  # mm: from the reference's elements, from the prediction's
    areas: tuple[np.ndarray, np.ndarray]  # mm² of these elements

    def hausdorff(self, fraction: float) -> float:
        """The distance in mm within which `fraction` of either surface's area lies, the larger of both (HD95: 0.95)."""
        return max(_weighted_quantile(d, a, fraction) for d, a in zip(self.distances, self.areas, strict=True))

    def average(self) -> float:
        """Average symmetric surface distance in mm: the mean over the area of both surfaces together."""
        weighted = sum(float(d @ a) for d, a in zip(self.distances, self.areas, strict=True))
        return weighted / sum(float(a.sum()) for a in self.areas)

    def surface_dice(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: the part of the area of both surfaces that the other is within reach of."""
        within = sum(float(a[d <= tolerance_mm].sum()) for d, a in zip(self.distances, self.areas, strict=True))
        return within / sum(float(a.sum()) for a in self.areas)


def surface_of(mask: np.ndarray, spacing: tuple[float, ...], start: tuple[int, ...] = (0, 0, 0)) -> Surface:
    """The surface of a mask; what lies outside of it counts as empty.

    Args:
        mask: (x, y, z) booleans.
        spacing: mm per voxel along each axis.
        start: where the mask's first voxel lies in the image.
    """
    box = bounding_box(mask)
    if box is None:
        return Surface(np.empty((0, 3), np.int64), np.empty(0))
    padded = np.pad(mask[box], 1).view(np.uint8)
    around = tuple(n - 1 for n in padded.shape)
    codes = np.zeros(around, np.uint8)  # one bit for each voxel around a corner
    for bit, corner in enumerate(_CORNERS):
        codes |= padded[tuple(slice(c, c + n) for c, n in zip(corner, around, strict=True))] << np.uint8(bit)
    flat = np.flatnonzero((codes != 0) & (codes != 255))
    corners = np.stack(np.unravel_index(flat, codes.shape), axis=1)
    corners += [s + b.start for s, b in zip(start, box, strict=True)]
    return Surface(corners, _element_areas(tuple(map(float, spacing)))[codes.ravel()[flat]])


def distances_between(reference: Surface, prediction: Surface, spacing: tuple[float, ...]) -> SurfaceDistances:
    """Distances in mm from each element of one surface to the nearest of the other, both ways; neither is empty."""
    there = _nearest(reference.corners, prediction.corners, np.asarray(spacing, float))
    back = _nearest(prediction.corners, reference.corners, np.asarray(spacing, float))
    return SurfaceDistances((there, back), (reference.areas, prediction.areas))


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box with all of a mask's voxels; None if it has none."""
    box = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not filled.size:
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _nearest(points: np.ndarray, others: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance in mm from each of `points` to the nearest of `others`; both (n, 3) in voxels."""
    first = np.minimum(points.min(axis=0), others.min(axis=0))
    size = np.maximum(points.max(axis=0), others.max(axis=0)) - first + 1
    if len(points) + len(others) > CROWDED * size.prod():
        free = np.ones(size, bool)
        free[tuple((others - first).T)] = False
        return distance_transform_edt(free, sampling=spacing)[tuple((points - first).T)]
    _, index = cKDTree(others * spacing, balanced_tree=False, compact_nodes=False).query(points * spacing)
    # From whole voxels once more: differences of products are rounded, which matters where a tolerance is met exactly.
    return np.sqrt((((points - others[index]) * spacing) ** 2).sum(axis=1))


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, fraction: float) -> float:
    order = np.lexsort((weights, values))
    index = np.searchsorted(np.cumsum(weights[order]) / weights[order].sum(), fraction)
    return float(values[order][min(int(index), len(values) - 1)])


@lru_cache(maxsize=16)
def _element_areas(spacing: tuple[float, ...]) -> np.ndarray:
    """The area in mm² of the element for each pattern of the eight voxels around a corner, (256,)."""
    sides = np.array([spacing[1] * spacing[2], spacing[0] * spacing[2], spacing[0] * spacing[1]])
    return np.array([np.sqrt(((normals * sides) ** 2).sum(axis=1)).sum() for normals in _normals()])


@lru_cache(maxsize=1)
def _normals() -> tuple[np.ndarray, ...]:
    """For each pattern the normals of its triangles, as long as their area, (triangles, 3), in voxels.

    A pattern and its inverse have the same ones, those of the pattern with fewer voxels: then it makes no difference
    which of both is the mask. (Marching cubes as such would join diagonal neighbours in one case and part them in the
    other.)
    """
    found = []
    for code in range(256):
        inside = np.array([code >> bit & 1 for bit in range(8)], float).reshape(2, 2, 2)
        if inside.sum() > 4:
            inside = 1 - inside
        if not inside.any():
            found.append(np.zeros((0, 3)))
            continue
        points, faces, *_ = marching_cubes(inside, 0.5, method="lorensen")
        first, second, third = points.astype(float)[faces.T]
        found.append(np.cross(second - first, third - first) / 2)
    return tuple(found)
