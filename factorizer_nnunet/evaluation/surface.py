"""Surfaces of masks and the distances between them, weighted by area.

A surface separates the voxels of a mask from the others. It has one element at every voxel corner where voxels of both
kinds meet. The area of an element is that of the marching cubes triangles (Lorensen and Cline, 1987) between the
centres of the eight voxels around it. So distances do not depend on how finely an axis is sampled, and even a mask of
one voxel has a surface. This is the definition of Nikolov et al. (2018, arXiv 1809.04430), used by BraTS since 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from factorizer_nnunet.imaging.content import bounding_box
from factorizer_nnunet.imaging.limits import at_least, at_most

CROWDED = 1 / 12  # query points per voxel of their box above which a distance map is faster than a search tree
ROUNDING = 1e-6  # mm, larger than any rounding error of a distance
LEAF = 8  # elements; fewer than SciPy's default of 16, since the nearest element is usually close
_CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]


@dataclass(frozen=True)
class Surface:
    """The elements of a mask's surface."""

    corners: np.ndarray  # (elements, 3) integers, in voxels from a corner of the image; stored axis by axis
    areas: np.ndarray  # (elements,) mm²

    def __len__(self) -> int:
        return len(self.areas)

    def part(self, chosen: np.ndarray) -> Surface:
        """Some of the elements, by their indices."""
        return Surface(self.corners.T.take(chosen, axis=1).T, self.areas[chosen])


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces, neither of them empty."""

    surfaces: tuple[Surface, Surface]  # reference, prediction
    distances: tuple[np.ndarray, np.ndarray]  # mm, from each element of one surface to the nearest of the other
    nearest: tuple[np.ndarray, np.ndarray]  # index of that nearest element
    spacing: tuple[float, ...]

    @property
    def areas(self) -> tuple[np.ndarray, np.ndarray]:
        """Areas in mm² of the elements of both surfaces."""
        return self.surfaces[0].areas, self.surfaces[1].areas

    def hausdorff(self, fraction: float) -> float:
        """The distance in mm within which `fraction` of each surface's area lies, the larger of both (HD95: 0.95)."""
        return max(_weighted_quantile(d, a, fraction) for d, a in zip(self.distances, self.areas, strict=True))

    def hausdorff_between(self, reference: np.ndarray, prediction: np.ndarray, fraction: float) -> float:
        """`hausdorff` in mm between parts of both surfaces, given as element indices, neither of them empty.

        Most distances need not be computed: bounds are enough for elements that are certainly nearer or farther than
        the quantile, and for a direction that certainly does not give the larger value.
        """
        chosen, spacing, largest = (reference, prediction), np.asarray(self.spacing, float), 0.0
        for side in sorted((0, 1), key=lambda side: len(chosen[side]), reverse=True):
            other_side = 1 - side
            own, other = self.surfaces[side].part(chosen[side]), self.surfaces[other_side].part(chosen[other_side])
            inside = np.zeros(len(self.surfaces[other_side]), bool)
            inside[chosen[other_side]] = True
            distances = self.distances[side][chosen[side]]
            outside = np.flatnonzero(~inside[self.nearest[side][chosen[side]]])  # nearest element not in the other part
            if outside.size:
                low, high = distances, distances.copy()
                least, high[outside] = _bounds(own.corners[outside], other.corners, spacing)
                low[outside] = np.maximum(low[outside], least)
                at_most = _weighted_quantile(high, own.areas, fraction) + ROUNDING
                if at_most <= largest:
                    continue
                at_least = _weighted_quantile(low, own.areas, fraction) - ROUNDING
                unsure = outside[(low[outside] <= at_most) & (high[outside] >= at_least)]
                if unsure.size:
                    distances[unsure] = _nearest(own.corners[unsure], other.corners, spacing)[0]
            largest = max(largest, _weighted_quantile(distances, own.areas, fraction))
        return largest

    def average(self) -> float:
        """Average symmetric surface distance in mm, weighted by the area of both surfaces."""
        weighted = sum(float(d @ a) for d, a in zip(self.distances, self.areas, strict=True))
        return weighted / sum(float(a.sum()) for a in self.areas)

    def surface_dice(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: the fraction of both surfaces' area within the tolerance of the other surface."""
        within = sum(float(a[at_most(d, tolerance_mm)].sum()) for d, a in zip(self.distances, self.areas, strict=True))
        return within / sum(float(a.sum()) for a in self.areas)


def surface_of(mask: np.ndarray, spacing: tuple[float, ...], flat: bool = False) -> Surface:
    """The surface of a mask; everything outside the array counts as background.

    Args:
        mask: (x, y, z) booleans.
        spacing: mm per voxel along each axis.
        flat: the mask is a 2D image, (x, y, 1): its surface is its outline, without the faces of the slice.
    """
    box = bounding_box(mask)
    if box is None:
        return Surface(np.empty((0, 3), np.int64), np.empty(0))
    padded = np.pad(mask[box], ((1, 1), (1, 1), (0, 0) if flat else (1, 1))).view(np.uint8)
    if flat:
        padded = padded.repeat(2, axis=2)  # outlines have elements at the corners of one layer
    around = tuple(n - 1 for n in padded.shape)
    codes = np.zeros(around, np.uint8)  # one bit for each voxel around a corner
    for bit, corner in enumerate(_CORNERS):
        codes |= padded[tuple(slice(c, c + n) for c, n in zip(corner, around, strict=True))] << np.uint8(bit)
    found = np.flatnonzero((codes != 0) & (codes != 255))
    corners = np.array(np.unravel_index(found, codes.shape)).T
    corners += [side.start for side in box]
    return Surface(corners, _element_areas(tuple(map(float, spacing)))[codes.ravel()[found]])


def distances_between(reference: Surface, prediction: Surface, spacing: tuple[float, ...]) -> SurfaceDistances:
    """Distances in mm between two surfaces in both directions; neither surface is empty."""
    mm = np.asarray(spacing, float)
    forward = _nearest(reference.corners, prediction.corners, mm)
    backward = _nearest(prediction.corners, reference.corners, mm)
    return SurfaceDistances((reference, prediction), (forward[0], backward[0]), (forward[1], backward[1]), spacing)


def _nearest(points: np.ndarray, others: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance in mm from each of `points` to the nearest of `others`, and its index; both (n, 3) in voxels."""
    first = np.minimum(points.min(axis=0), others.min(axis=0)) - 1  # with a margin, so that all voxels have neighbours
    size = np.maximum(points.max(axis=0), others.max(axis=0)) - first + 2
    number = np.full(size.prod(), -1, np.int32)
    steps = np.array([size[1] * size[2], size[2], 1])
    number[(others - first) @ steps] = np.arange(len(others), dtype=np.int32)
    places = (points - first) @ steps
    index = number[places]
    left = np.flatnonzero(index < 0)
    for shift in _near_shifts(tuple(spacing)):  # for a good prediction, few points are left after these
        found = number[places[left] + shift @ steps]
        index[left] = found
        left = left[found < 0]
    if len(left) > CROWDED * number.size:
        taken = number.reshape(size)
        where = distance_transform_edt(taken < 0, sampling=spacing, return_distances=False, return_indices=True)
        x, y, z = (points[left] - first).T
        index[left] = taken[tuple(where[:, x, y, z])]
    elif len(left):
        tree = cKDTree(others * spacing, leafsize=LEAF, balanced_tree=False, compact_nodes=False)
        index[left] = tree.query(points[left] * spacing)[1]
    # Subtract voxel indices, not mm: rounding would matter where a distance equals a tolerance exactly.
    return _lengths((points - others[index]) * spacing), index


def _bounds(points: np.ndarray, others: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds in mm of the distance from each of `points` to the nearest of `others`.

    The lower bound is the distance to the box around the others, the upper bound that to the element of the others
    which is nearest to the centre of the points.
    """
    outside = np.maximum(np.maximum(others.min(axis=0) - points, points - others.max(axis=0)), 0)
    central = others[_lengths((others - points.mean(axis=0)) * spacing).argmin()]
    return _lengths(outside * spacing), _lengths((points - central) * spacing)


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """Lengths of vectors (n, 3); axis by axis, since a sum over an axis of length 3 is slow."""
    squares = vectors**2
    return np.sqrt(squares[:, 0] + squares[:, 1] + squares[:, 2])


@lru_cache(maxsize=16)
def _near_shifts(spacing: tuple[float, ...]) -> tuple[np.ndarray, ...]:
    """Steps to neighbouring voxels, shortest first, up to the length of the shortest step of two voxels."""
    shifts = [np.array(shift) - 1 for shift in np.ndindex(3, 3, 3) if shift != (1, 1, 1)]
    lengths = [float(np.linalg.norm(shift * spacing)) for shift in shifts]
    order = np.argsort(lengths, kind="stable")
    return tuple(shifts[n] for n in order if lengths[n] <= 2 * min(spacing))


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, fraction: float) -> float:
    order = np.argsort(values)
    reached: np.ndarray = at_least(np.cumsum(weights[order]) / weights[order].sum(), fraction)
    return float(values[order][np.argmax(reached)])


@lru_cache(maxsize=16)
def _element_areas(spacing: tuple[float, ...]) -> np.ndarray:
    """The area in mm² of the element for each pattern of the eight voxels around a corner, (256,)."""
    sides = np.array([spacing[1] * spacing[2], spacing[0] * spacing[2], spacing[0] * spacing[1]])
    return np.array([np.sqrt(((normals * sides) ** 2).sum(axis=1)).sum() for normals in _normals()])


@lru_cache(maxsize=1)
def _normals() -> tuple[np.ndarray, ...]:
    """For each pattern the normals of its triangles, with their area as length, (triangles, 3), in voxels.

    A pattern and its inverse have the same normals, those of the pattern with fewer voxels, so that it does not matter
    which of both is the mask. (Plain marching cubes would join diagonal neighbours in one case and separate them in the
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
