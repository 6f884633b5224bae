"""An explained case: image, prediction, components with their maps, and what is known of each component."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from factorizer_nnunet.evaluation.schemes import Labels
from factorizer_nnunet.explain.blending import BlendedMaps
from factorizer_nnunet.explain.components import Component
from factorizer_nnunet.explain.deletion import ClassChange
from factorizer_nnunet.explain.geometry import CaseGeometry, Volume
from factorizer_nnunet.explain.ranking import Separation, best_first
from factorizer_nnunet.explain.recorder import LayerRecord


@dataclass(frozen=True)
class Assessment:
    """What is known of one component in one case."""

    component: Component
    energy_share: float  # ‖U Vᵀ‖² over ‖X‖² of all heads of its layer
    head_share: float  # ‖U Vᵀ‖² over ‖X‖² of its own head: how much of its input the component explains
    mean_loading: tuple[float, ...]  # of its channels, norm at most 1: the unit columns of U, averaged by energy
    largest: float  # highest value of the map, in units of the hidden features
    predicted: dict[str, Separation]  # by class
    true: dict[str, Separation] | None  # None without a truth
    deletion: dict[str, ClassChange] | None = None  # by class, without its head; None if not tested


@dataclass(frozen=True)
class Explanation:
    """A case, its prediction and its components; the maps are stored at the resolution of their stages."""

    case: str
    image: np.ndarray  # (channels, x, y, z)
    prediction: np.ndarray  # label values, (x, y, z)
    truth: np.ndarray | None  # likewise
    classes: Mapping[str, Labels]  # label values of each class or region
    ignored: int | None  # the ignore label
    geometry: CaseGeometry
    patch: tuple[int, ...]  # nnU-Net's patch size, with three axes
    properties: Mapping[str, Any]  # nnU-Net's, for its writers
    records: dict[str, LayerRecord]  # of the NMF layers, by name
    warnings: tuple[str, ...] = ()  # about the image
    assessments: list[Assessment] = field(default_factory=list)  # in the order of the layers
    folder: tempfile.TemporaryDirectory | None = None  # of the maps' files, removed with this object

    def close(self) -> None:
        """Remove the files of the maps."""
        if self.folder is not None:
            self.folder.cleanup()

    @property
    def layers(self) -> list[str]:
        """Names of the NMF layers."""
        return list(self.records)

    @property
    def bytes_per_map(self) -> int:
        """Memory needed to make, assess and write one map: the map, three copies of it, and as much for integers."""
        return 32 * self.prediction.size

    def map(self, component: Component) -> Volume:
        """The component's V on the grid of the original image, in units of the hidden features."""
        record = self.records[component.layer]
        return Volume(self._on_image(record.maps, record.index(component)), self.geometry.grid)

    def loadings(self, component: Component) -> Volume:
        """For each voxel, the unit column of U of its window: (x, y, z, head_dim).

        Raises:
            ValueError: they were not recorded.
        """
        record = self.records[component.layer]
        if record.loadings is None:
            raise ValueError("the loadings were not recorded: explain with with_loadings=True")
        width = component.channels[1] - component.channels[0]
        first = record.index(component) * width
        channels = [self._on_image(record.loadings, first + channel) for channel in range(width)]
        return Volume(np.stack(channels, -1), self.geometry.grid)

    def top(self, layer: str, name: str, count: int) -> list[Assessment]:
        """The components of a layer that separate a predicted class best, best first; some of them avoid it.

        Empty for a class that is nowhere, or everywhere: nothing can be separated then.
        """
        own = [
            one for one in self.assessments if one.component.layer == layer and one.predicted[name].strength is not None
        ]
        return [own[i] for i in best_first([one.predicted[name].strength for one in own])[:count]]

    def top_of_all(self, count: int) -> list[Assessment]:
        """The components among the best ``count`` of any layer and class, each once."""
        best = (one for name in self.classes for layer in self.layers for one in self.top(layer, name, count))
        return list({one.component.name: one for one in best}.values())

    def _on_image(self, maps: BlendedMaps, index: int) -> np.ndarray:
        return self.geometry.from_stage(maps.mean(index), maps.stride, self.patch)
