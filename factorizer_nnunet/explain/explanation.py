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
    """What is known of one component in one case.

    Attributes:
        energy_share: ‖U Vᵀ‖² over ‖X‖² of all heads of its layer.
        head_share: ‖U Vᵀ‖² over ‖X‖² of its own head: how much of its input the component explains.
        mean_loading: weights of its channels, norm at most 1: the unit columns of U, averaged by energy.
        largest: highest value of the map, in units of the hidden features.
        predicted, true: separation of each class; ``true`` is None without a truth.
        deletion: change of each class without the component's head; None if not tested.
    """

    component: Component
    energy_share: float
    head_share: float
    mean_loading: tuple[float, ...]
    largest: float
    predicted: dict[str, Separation]
    true: dict[str, Separation] | None
    deletion: dict[str, ClassChange] | None = None


@dataclass(frozen=True)
class Explanation:
    """A case, its prediction and its components; the maps are stored at the resolution of their stages.

    Attributes:
        case: its name.
        image: (channels, x, y, z).
        prediction, truth: label values, (x, y, z).
        classes: label values of each class or region.
        ignored: the ignore label, if the data set has one.
        geometry: of the original image.
        patch: nnU-Net's patch size, with three axes.
        properties: nnU-Net's, for its writers.
        records: of the NMF layers, by name.
        assessments: one per component, in the order of the layers; for the best ones see ``top``.
        folder: with the maps' files, which are removed together with this object.
    """

    case: str
    image: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray | None
    classes: Mapping[str, Labels]
    ignored: int | None
    geometry: CaseGeometry
    patch: tuple[int, ...]
    properties: Mapping[str, Any]
    records: dict[str, LayerRecord]
    assessments: list[Assessment] = field(default_factory=list)
    folder: tempfile.TemporaryDirectory | None = None

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
        return self.geometry.to_volume(self._on_image(record.maps, record.index(component)))

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
        return self.geometry.to_volume(np.stack(channels, -1))

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
