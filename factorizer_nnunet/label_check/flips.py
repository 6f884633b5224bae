"""Whether a label is mirrored: it agrees much better with the model's segmentation after mirroring."""

from __future__ import annotations

import itertools

import numpy as np

from factorizer_nnunet.evaluation.overlap import dice
from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.imaging.planes import orientation_of
from factorizer_nnunet.label_check.finding import Finding, Kind, Proposal, middle_of
from factorizer_nnunet.label_check.opinion import Opinion

_LEAST_GAIN = 0.2  # of Dice over all labels
_AXES = ("left-right", "front-back", "up-down")  # by axis of space


def mirrored_label(case: str, opinion: Opinion, grid: Grid) -> Proposal | None:
    """The finding that a label is mirrored along one or more axes of its file; None if it is not."""
    reference, prediction = opinion.reference, opinion.prediction
    labelled, found = np.nonzero(reference), int(np.count_nonzero(prediction))
    if not labelled[0].size or not found:
        return None
    values = reference[labelled]

    def agreement(axes: tuple[int, ...]) -> float:
        """Dice over all labels after mirroring along voxel axes."""
        there = tuple(
            reference.shape[axis] - 1 - index if axis in axes else index for axis, index in enumerate(labelled)
        )
        return dice(int(np.count_nonzero(prediction[there] == values)), values.size, found)

    usable = [axis for axis in range(3) if reference.shape[axis] > 1]
    choices = [axes for count in range(1, 4) for axes in itertools.combinations(usable, count)]
    before = agreement(())
    best = max(choices, key=lambda axes: (agreement(axes), -len(axes)), default=())
    gain = agreement(best) - before
    if gain < _LEAST_GAIN:
        return None
    mirrored = np.flip(reference, best)
    places = np.flatnonzero(mirrored != reference)
    space = orientation_of(grid)[:, 0].astype(int)
    where = ", ".join(_AXES[space[axis]] for axis in best)
    finding = Finding(
        case=case,
        kind=Kind.FLIPPED,
        where=where,
        volume_ml=values.size * opinion.voxel_ml,
        probability=opinion.probability(places),
        evidence=gain,
        centre=middle_of(np.flatnonzero(reference), reference.shape),
        voxels=places.size,
    )
    return Proposal(finding, places, mirrored.ravel()[places])
