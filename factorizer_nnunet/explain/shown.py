"""How an explained case is shown: its channels with their windows, and the slices of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from factorizer_nnunet.explain.explanation import Explanation
from factorizer_nnunet.explain.heat import heated
from factorizer_nnunet.imaging.channels import display_channel
from factorizer_nnunet.imaging.planes import (
    Plane,
    extent_mm,
    fullest_slice,
    planes_of,
    slice_labels,
    slice_picture,
    slice_position,
)
from factorizer_nnunet.imaging.window import window_of
from factorizer_nnunet.pages.viewer import ShownImage


@dataclass(frozen=True)
class Shown:
    """The channels of a case, and the one to show first."""

    images: list[ShownImage]
    start: int

    @classmethod
    def of(cls, explanation: Explanation, channels: Sequence[str] = (), start: int | None = None) -> Shown:
        """With the names of channels; without ``start``, the one with the largest contrast of the prediction is first.

        ``start`` is counted from 0.
        """
        labelled = explanation.prediction > 0
        names = [channels[n] if n < len(channels) else f"channel {n}" for n in range(len(explanation.image))]
        images = [
            ShownImage(name, values, window_of(values, name, labelled))
            for name, values in zip(names, explanation.image, strict=True)
        ]
        return cls(images, display_channel([*explanation.image], labelled) if start is None else start)

    @property
    def image(self) -> ShownImage:
        """The image to show first."""
        return self.images[self.start]

    @property
    def caption(self) -> str:
        """Its name and window."""
        return f"{self.image.name}, window {self.image.window.text}"


@dataclass(frozen=True)
class Cut:
    """A slice of the image that is shown first, and the outlines of all classes."""

    plane: Plane
    number: int  # of the slice
    position: str  # such as "S 34.2 mm"; "" if unknown
    grey: np.ndarray  # uint8 (rows, columns)
    masks: list[np.ndarray]  # bool, likewise, one for each class
    extent_mm: tuple[float, float]  # height and width
    oriented: bool  # whether the patient's sides are known

    @property
    def name(self) -> str:
        """Such as "axial, S 34.2 mm"; "" if the patient's sides are not known."""
        return f"{self.plane.name}, {self.position}" if self.oriented else ""

    @property
    def known_plane(self) -> Plane | None:
        """The plane, if the patient's sides are known."""
        return self.plane if self.oriented else None


def cuts_of(explanation: Explanation, shown: Shown, mask: np.ndarray, outlined: np.ndarray | None = None) -> list[Cut]:
    """In each plane, the slice with most of a mask, (x, y, z); ``outlined`` are label values, by default predicted."""
    outlined = explanation.prediction if outlined is None else outlined
    grid, cuts = explanation.geometry.grid, []
    for plane in planes_of(grid):
        number = fullest_slice(mask, plane, grid)
        labels = slice_labels(outlined, plane, grid, number)
        cuts.append(
            Cut(
                plane,
                number,
                slice_position(plane, grid, number) if explanation.geometry.oriented else "",
                slice_picture(shown.image.values, plane, grid, number, shown.image.window.ends),
                [np.isin(labels, values) for values in explanation.classes.values()],
                extent_mm(plane, grid),
                explanation.geometry.oriented,
            )
        )
    return cuts


def heated_cut(explanation: Explanation, cut: Cut, values: np.ndarray, high: float) -> np.ndarray:
    """The slice below the colours of a map (x, y, z) from 0 to ``high``; uint8 (rows, columns, RGB)."""
    return heated(cut.grey, slice_picture(values, cut.plane, explanation.geometry.grid, cut.number, (0.0, high)))
