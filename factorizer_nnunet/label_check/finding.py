"""What may be wrong in a label: a place where a model that was not trained on the case contradicts it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum

import numpy as np


class Kind(Enum):
    """Kinds of findings. The values are stored in review lists, and so stay as they are."""

    FLIPPED = "flipped"
    EMPTY = "empty label"
    SWAPPED = "other class"
    MISSING = "missing in the label"
    EXTRA = "only in the label"
    SHIFTED = "shifted"
    BORDER = "border"


# What "correct" does, for the page and the documentation.
CORRECTIONS = {
    Kind.FLIPPED: "mirror the label",
    Kind.EMPTY: "take the model's labels",
    Kind.SWAPPED: "exchange the class, keeping the outlines",
    Kind.MISSING: "add the model's labels there",
    Kind.EXTRA: "take the model's labels there, mostly background",
    Kind.SHIFTED: "take the model's labels of the structure",
    Kind.BORDER: "take the model's labels of the structure",
}


@dataclass(frozen=True)
class Finding:
    """A part of a label that the model contradicts.

    Attributes:
        case: its name.
        kind: what may be wrong.
        where: regions or labels concerned, or the axis of a flip.
        volume_ml: of the voxels concerned.
        probability: mean probability that the model gives its own decision there; NaN if it is not known.
        evidence: how much the model contradicts, in ml for parts that are missing, extra or of another class, in terms
            of Dice for others. Comparable within a kind and ``where``.
        centre: voxel (x, y, z) to look at.
        voxels: how many a correction changes.
        score: rank among all findings of a data set, 0 to 1; see ``ranking``.
    """

    case: str
    kind: Kind
    where: str
    volume_ml: float
    probability: float
    evidence: float
    centre: tuple[int, int, int]
    voxels: int
    score: float = 0.0

    @property
    def key(self) -> str:
        """A name that no spreadsheet changes; different for any other case, place or size."""
        content = f"{self.case}|{self.kind.value}|{self.where}|{self.centre}|{self.voxels}|{self.volume_ml:.6g}"
        return "f_" + hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:12]


@dataclass(frozen=True)
class Proposal:
    """A finding and its correction: new label values at some voxels.

    Attributes:
        finding: what may be wrong.
        places: flat C-order indices of voxels, ascending.
        values: the new label of each.
    """

    finding: Finding
    places: np.ndarray
    values: np.ndarray


def middle_of(places: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The voxel (x, y, z) among flat indices that is nearest to their mean."""
    coordinates = np.stack(np.unravel_index(places, shape), axis=1)
    nearest = int(((coordinates - coordinates.mean(axis=0)) ** 2).sum(axis=1).argmin())
    x, y, z = (int(value) for value in coordinates[nearest])
    return x, y, z
