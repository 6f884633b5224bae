"""Whether a label is mirrored: it agrees much better with the model's segmentation after mirroring.

Other errors gain from mirroring, too: exchanged classes, such as the front and the back of an organ, and a label that
is shifted to the other side of the image. So mirroring must explain more than other names of the classes do; and more
than a shift, unless it brings the label to where the segmentation is.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linear_sum_assignment

from factorizer_nnunet.evaluation.overlap import dice
from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.imaging.planes import orientation_of
from factorizer_nnunet.label_check.finding import Finding, Kind, Proposal, middle_of
from factorizer_nnunet.label_check.opinion import Opinion

_LEAST_GAIN = 0.2  # of Dice over all labels
_OFF_CENTRE = 0.1  # of the label's extent
_AXES = ("left-right", "front-back", "up-down")  # by axis of space


def mirrored_label(case: str, opinion: Opinion, grid: Grid) -> Proposal | None:
    """The finding that a label is mirrored along one or more axes of its file; None if it is not."""
    reference, prediction = opinion.reference, opinion.prediction
    labelled, found = np.nonzero(reference), np.nonzero(prediction)
    if not labelled[0].size or not found[0].size:
        return None
    values = reference[labelled]

    def agreement(axes: tuple[int, ...]) -> float:
        """Dice over all labels after mirroring along voxel axes."""
        there = tuple(
            reference.shape[axis] - 1 - index if axis in axes else index for axis, index in enumerate(labelled)
        )
        return dice(int(np.count_nonzero(prediction[there] == values)), values.size, found[0].size)

    usable = [axis for axis in range(3) if reference.shape[axis] > 1]
    choices = [axes for count in range(1, 4) for axes in itertools.combinations(usable, count)]
    best = max(choices, key=lambda axes: (agreement(axes), -len(axes)), default=())
    after = agreement(best)
    gain = after - agreement(())
    if gain < _LEAST_GAIN or after <= _agreement_by_names(values, prediction[labelled], found[0].size):
        return None
    off_centre = _is_off_centre(labelled, found, best, reference.shape)
    if off_centre and after <= _agreement_by_shift(labelled, values, prediction, found):
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


def _agreement_by_names(labelled: np.ndarray, predicted: np.ndarray, found: int) -> float:
    """Dice over all labels if each class of the label had the name that suits the segmentation best.

    Args:
        labelled: label values of its foreground, (voxels,).
        predicted: the model's at the same voxels.
        found: voxels of the model's foreground.
    """
    (classes, rows), (others, columns) = (np.unique(one, return_inverse=True) for one in (labelled, predicted))
    common = np.zeros((classes.size, others.size), np.int64)
    np.add.at(common, (rows, columns), 1)
    common[:, others == 0] = 0  # no class of the label is the background
    return dice(int(common[linear_sum_assignment(common, maximize=True)].sum()), labelled.size, found)


def _is_off_centre(
    labelled: tuple[np.ndarray, ...], found: tuple[np.ndarray, ...], axes: tuple[int, ...], shape: tuple[int, ...]
) -> bool:
    """Whether the centre of the mirrored label is far from that of the segmentation, along an axis of the mirroring.

    Args:
        labelled: indices of the label's foreground, an array (voxels,) for each axis.
        found: those of the segmentation.
        axes: to mirror along.
        shape: of the image, (x, y, z).
    """
    return any(
        abs(shape[axis] - 1 - labelled[axis].mean() - found[axis].mean())
        > max(1.0, _OFF_CENTRE * (np.ptp(labelled[axis]) + 1))
        for axis in axes
    )


def _agreement_by_shift(
    labelled: tuple[np.ndarray, ...], values: np.ndarray, prediction: np.ndarray, found: tuple[np.ndarray, ...]
) -> float:
    """Dice over all labels if the label was moved so that its centre is that of the segmentation.

    Args:
        labelled: indices of the label's foreground, an array (voxels,) for each axis.
        values: the label there, (voxels,).
        prediction: the segmentation, (x, y, z).
        found: indices of its foreground.
    """
    moved = [own + round(float(there.mean() - own.mean())) for own, there in zip(labelled, found, strict=True)]
    inside = np.all([(index >= 0) & (index < n) for index, n in zip(moved, prediction.shape, strict=True)], axis=0)
    there = prediction[tuple(index[inside] for index in moved)]
    return dice(int(np.count_nonzero(there == values[inside])), values.size, found[0].size)
