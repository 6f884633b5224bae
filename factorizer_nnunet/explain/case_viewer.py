"""The explained case as it can be opened from its page: all channels, labels and the best components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from factorizer_nnunet.core.wording import short
from factorizer_nnunet.explain.explanation import Assessment, Explanation
from factorizer_nnunet.explain.heat import COLOURS
from factorizer_nnunet.explain.shown import Shown
from factorizer_nnunet.imaging.content import content_box
from factorizer_nnunet.imaging.display_grid import DisplayGrid, display_grid, to_uint8
from factorizer_nnunet.imaging.grid import cropped
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.pages.viewer import ShownCase, ShownImage, ShownMap, stored_case, viewer

_SHARE_OF_MAPS = 0.4  # of the limit, as bytes before compression and base64
_SIDES_OF_MAPS = (96, 80, 64, 48, 32, 24, 16, 8)


@dataclass
class CaseViewer:
    """Collects the maps of a case and makes its viewer."""

    explanation: Explanation
    shown: Shown
    components: Sequence[Assessment]  # whose maps will be added
    limit_mb: float
    maps: list[ShownMap] = field(default_factory=list)

    def __post_init__(self) -> None:
        labels = [self.explanation.prediction]
        self._box = content_box([image.values for image in self.shown.images], labels)
        self._grid = cropped(self.explanation.geometry.grid, self._box)
        self._map_grid = self._finest()

    def add(self, one: Assessment, values: np.ndarray) -> None:
        """Store the map of a component, (x, y, z)."""
        volume = to_uint8(self._map_grid.resample(values[self._box]), 0.0, one.largest)
        self.maps.append(ShownMap(one.component.name, volume, f"{short(one.largest)} feature norm"))

    def html(self) -> str:
        """The viewer."""
        explanation, box = self.explanation, self._box
        labels = {"true label": explanation.truth, "prediction": explanation.prediction}
        images = [ShownImage(one.name, one.values[box], one.window) for one in self.shown.images]
        segmentations = {title: values[box] for title, values in labels.items() if values is not None}
        case = ShownCase(
            number=0,
            grid=self._grid,
            images=images,
            start=self.shown.start,
            segmentations=segmentations,
            oriented=explanation.geometry.oriented,
            maps=self.maps,
            first=tuple(part.start for part in box),
            file_size=explanation.geometry.grid.size,
        )
        stored = map(stored_case, [case])
        return viewer(stored, explanation.classes, [explanation.case], ViewerLimits(1, self.limit_mb), COLOURS.tolist())

    def _finest(self) -> DisplayGrid:
        """The finest display grid on which all maps have at most their share of the limit."""
        for side in _SIDES_OF_MAPS:
            grid = display_grid(self._grid, side)
            if math.prod(grid.size) * len(self.components) <= self.limit_mb * 1e6 * _SHARE_OF_MAPS:
                break
        return grid
