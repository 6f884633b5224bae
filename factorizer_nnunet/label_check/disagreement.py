"""All findings in one case: where a label and the segmentation of a model that was not trained on it differ, and how.

A mirrored label explains everything else. Then come structures of another class, whole structures that only one of the
two has, and last the borders of structures that both have; those of several regions may share voxels, all others do
not. A structure is a connected component (26 neighbours).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from factorizer_nnunet.evaluation.lesions import LesionRule, reference_lesions
from factorizer_nnunet.evaluation.overlap import dice
from factorizer_nnunet.evaluation.surface import bounding_box
from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.label_check.finding import Finding, Kind, Proposal, middle_of
from factorizer_nnunet.label_check.flips import mirrored_label
from factorizer_nnunet.label_check.opinion import Opinion

_LEAST_VOXELS = 3  # smaller structures and differences are not listed
_LEAST_BORDER = 0.02  # loss of Dice by a border that is worth a line
_SHIFT_GAIN, _SHIFT_BELOW = 0.2, 0.75  # a shift is one if it raises a Dice below the latter by the former
_MOST_OF_A_KIND = 5  # in a case; the largest are listed


def proposals_of(case: str, opinion: Opinion, grid: Grid) -> list[Proposal]:
    """Everything in a case that may be wrong, with corrections; the largest of each kind only.

    Args:
        case: its name.
        opinion: label and segmentation.
        grid: of both, whose directions tell left from right.
    """
    mirrored = mirrored_label(case, opinion, grid) if opinion.is_complete else None
    if mirrored is not None:
        return [mirrored]
    box = bounding_box((opinion.reference != 0) | (opinion.prediction != 0))
    if box is None:
        return []
    search = _Search(case, opinion.cropped(box))
    found = [*search.swapped(), *search.whole_structures(), *search.borders()]
    return [_on_whole_image(one, box, opinion.reference.shape) for one in found]


def _on_whole_image(one: Proposal, box: tuple[slice, ...], shape: tuple[int, ...]) -> Proposal:
    """A proposal for an image, from one for a part of it."""
    starts = [part.start for part in box]
    index = np.unravel_index(one.places, [part.stop - part.start for part in box])
    places = np.ravel_multi_index(tuple(axis + start for axis, start in zip(index, starts, strict=True)), shape)
    x, y, z = (value + start for value, start in zip(one.finding.centre, starts, strict=True))
    return Proposal(replace(one.finding, centre=(x, y, z)), places, one.values)


class _Search:
    """The findings of one case, in the order in which they are looked for."""

    def __init__(self, case: str, opinion: Opinion) -> None:
        self._case, self._opinion = case, opinion
        self._reference, self._prediction = opinion.reference, opinion.prediction
        self._left = self._reference != self._prediction  # differences without a finding

    def swapped(self) -> list[Proposal]:
        """Structures of the label that the model finds, too, but as another class; one finding for both directions."""
        opinion = self._opinion
        found: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]] = {}
        for label in _values_in(self._reference):
            for places in _components(self._reference == label):
                predicted = self._prediction.ravel()[places]
                counts = np.bincount(predicted)
                other = int(counts.argmax())
                if other in (0, label) or 2 * counts[other] <= places.size:
                    continue
                found.setdefault((min(label, other), max(label, other)), []).append(
                    (places, np.full(places.size, other))
                )
        results = []
        for pair, parts in found.items():
            places, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            order = np.argsort(places)
            names = " and ".join(opinion.names([label]) for label in pair)
            results.append(self._proposal(Kind.SWAPPED, names, places[order], values[order]))
        return _largest(results)

    def whole_structures(self) -> list[Proposal]:
        """Structures that only the label or only the model has: of any class first, then of each region."""
        is_empty = not self._reference.any()
        results = []
        everything = "", self._reference > 0, self._prediction > 0  # without the name of a region
        for name, one, other in itertools.chain([everything], self._regions()):
            for places, sizes in _joint_components(one, other):
                if all(sizes) or not self._left.ravel()[places].any():
                    continue
                kind = Kind.EXTRA if sizes[0] else Kind.EMPTY if is_empty else Kind.MISSING
                own = places[self._left.ravel()[places]]
                source = self._reference if sizes[0] else self._prediction
                where = name or self._opinion.names(np.unique(source.ravel()[own]))
                results.append(self._proposal(kind, where, own, self._prediction.ravel()[own]))
        return _largest(results)

    def borders(self) -> list[Proposal]:
        """Structures that both have, but elsewhere or of another shape."""
        results = []
        for name, one, other in self._regions():
            for places, sizes in _joint_components(one, other):
                if not all(sizes):
                    continue
                differs = one.ravel()[places] != other.ravel()[places]
                own = places[differs & self._left.ravel()[places]]
                loss = self._opinion.margin(own) / (sizes[0] + sizes[1])
                if own.size < _LEAST_VOXELS or loss < _LEAST_BORDER:
                    continue
                kind = Kind.SHIFTED if _is_shifted(one, other, places) else Kind.BORDER
                results.append(self._proposal(kind, name, own, self._prediction.ravel()[own], loss))
        return _largest(results)

    def _regions(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Name of each region, and its masks in label and segmentation."""
        for name, values in self._opinion.regions.items():
            yield name, np.isin(self._reference, values), np.isin(self._prediction, values)

    def _proposal(
        self, kind: Kind, where: str, places: np.ndarray, values: np.ndarray, evidence: float | None = None
    ) -> Proposal:
        opinion = self._opinion
        if evidence is None:
            evidence = opinion.margin(places) * opinion.voxel_ml
            self._left.ravel()[places] = False
        centre = middle_of(places, opinion.reference.shape)
        probability, volume = opinion.probability(places), places.size * opinion.voxel_ml
        finding = Finding(self._case, kind, where, volume, probability, evidence, centre, places.size)
        return Proposal(finding, places, values)


def _largest(proposals: list[Proposal]) -> list[Proposal]:
    ordered = sorted(proposals, key=lambda one: -one.finding.evidence)
    listed = [one for one in ordered if one.finding.voxels >= _LEAST_VOXELS and one.finding.evidence > 0]
    return listed[:_MOST_OF_A_KIND]


def _values_in(labels: np.ndarray) -> list[int]:
    return [int(value) for value in np.unique(labels) if value > 0]


def _components(mask: np.ndarray) -> list[np.ndarray]:
    """Ascending flat indices of the voxels of each connected component."""
    components = reference_lesions(np.ascontiguousarray(mask), LesionRule()).labels
    places = np.flatnonzero(components)
    numbers = components.ravel()[places]
    order = np.argsort(numbers, kind="stable")
    return np.split(places[order], np.flatnonzero(np.diff(numbers[order])) + 1) if places.size else []


def _joint_components(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Connected components of two masks together: flat indices, and the voxels of each mask in them."""
    for places in _components(one | other):
        yield places, (int(one.ravel()[places].sum()), int(other.ravel()[places].sum()))


def _is_shifted(one: np.ndarray, other: np.ndarray, places: np.ndarray) -> bool:
    """Whether the masks agree much better in a component after one is moved so that their centres coincide."""
    first, second = (places[mask.ravel()[places]] for mask in (one, other))
    common = np.intersect1d(first, second, assume_unique=True).size
    before = dice(common, first.size, second.size)
    if before >= _SHIFT_BELOW:
        return False
    moved, target = (np.stack(np.unravel_index(flat, one.shape), axis=1) for flat in (first, second))
    moved = moved + np.rint(target.mean(axis=0) - moved.mean(axis=0)).astype(int)
    inside = ((moved >= 0) & (moved < one.shape)).all(axis=1)
    flat = np.ravel_multi_index(tuple(moved[inside].T), one.shape)
    after = dice(np.intersect1d(flat, second, assume_unique=True).size, first.size, second.size)
    return after >= before + _SHIFT_GAIN
