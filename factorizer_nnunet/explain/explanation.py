"""An explained case: image, prediction, components with their maps, and what is known of each component."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
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


class ComponentMaps:
    """Maps of the components of a case, stored at the resolution of their stages.

    Args:
        records: by layer.
        geometry: of the case.
        patch: nnU-Net's patch size, with three axes.
        folder: with the maps' files; removed together with this object.
    """

    def __init__(
        self,
        records: Mapping[str, LayerRecord],
        geometry: CaseGeometry,
        patch: tuple[int, ...],
        folder: tempfile.TemporaryDirectory | None = None,
    ) -> None:
        self.records = dict(records)
        self.geometry = geometry
        self._patch = patch
        self._folder = folder

    def close(self) -> None:
        """Remove the files."""
        self.records.clear()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def bytes_per_map(self) -> int:
        """Memory needed to make, assess and write one map: the map, three copies of it, and as much for integers."""
        return 32 * int(np.prod(self.geometry.grid.size))

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

    def _on_image(self, maps: BlendedMaps, index: int) -> np.ndarray:
        return self.geometry.from_stage(maps.mean(index), maps.stride, self._patch)


@dataclass(frozen=True)
class Explanation:
    """A case, its prediction and its components.

    Attributes:
        case: its name.
        image: (channels, x, y, z).
        prediction, truth: label values, (x, y, z).
        classes: label values of each class or region.
        ignored: the ignore label, if the data set has one.
        geometry: of the original image.
        properties: nnU-Net's, for its writers.
        layers: names of the NMF layers.
        assessments: one per component, in the order of the layers; for the best ones see ``top``.
        maps: of the components.
    """

    case: str
    image: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray | None
    classes: Mapping[str, Labels]
    ignored: int | None
    geometry: CaseGeometry
    properties: Mapping[str, Any]
    layers: list[str]
    assessments: list[Assessment]
    maps: ComponentMaps

    def close(self) -> None:
        """Remove the files of the maps; otherwise they are removed together with this object."""
        self.maps.close()

    def map(self, component: Component) -> Volume:
        """The component's V on the grid of the original image, in units of the hidden features."""
        return self.maps.map(component)

    def loadings(self, component: Component) -> Volume:
        """For each voxel, the unit column of U of its window: (x, y, z, head_dim); see ``ComponentMaps``."""
        return self.maps.loadings(component)

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
