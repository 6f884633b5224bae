"""Record the factors of NMF layers while nnU-Net predicts, patch by patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from factorizer_nnunet.explain.blending import BlendedMaps, PatchPosition
from factorizer_nnunet.explain.components import Component, NMFLayer
from factorizer_nnunet.explain.factors import Factors, factorise


@dataclass
class LayerRecord:
    """The components of one layer after some patches; sums are over patches, overlaps counted repeatedly."""

    maps: BlendedMaps  # (K, …), on the stage's grid
    loadings: BlendedMaps | None  # (K × head_dim, …), or None
    mean_loading: Tensor  # as in Factors, summed
    energy: Tensor
    head_energy: Tensor

    @classmethod
    def empty(cls, layer: NMFLayer, size: Sequence[int], folder: Path, with_loadings: bool) -> LayerRecord:
        """A record of a volume of ``size`` voxels, with its maps in files of ``folder``."""
        heads, width = layer.mixer.num_heads, layer.mixer.head_dim
        count = heads * layer.mixer.nmf.rank
        stride = (1,) * (len(size) - len(layer.stride)) + layer.stride  # 2D patches are slices of a volume

        def blended(what: str, number: int) -> BlendedMaps:
            return BlendedMaps(folder / f"{layer.name}_{what}.npy", number, size, stride)

        return cls(
            maps=blended("maps", count),
            loadings=blended("loadings", count * width) if with_loadings else None,
            mean_loading=torch.zeros(count, width, dtype=torch.float64),
            energy=torch.zeros(count, dtype=torch.float64),
            head_energy=torch.zeros(heads, dtype=torch.float64),
        )

    def add(self, factors: Factors, position: PatchPosition, gaussian: Tensor) -> None:
        """Add one patch."""
        for blended, values in ((self.maps, factors.maps), (self.loadings, factors.loadings)):
            if blended is not None and values is not None:
                spatial = values.shape[-gaussian.ndim :]
                thickness = (1,) * (len(position.sizes) - len(spatial))
                blended.add(
                    values.reshape(len(blended), *thickness, *spatial), position, gaussian.reshape(position.sizes)
                )
        self.mean_loading += factors.mean_loading.cpu().double()
        self.energy += factors.energy.cpu().double()
        self.head_energy += factors.head_energy.cpu().double()

    def index(self, component: Component) -> int:
        """The component's place among the K of the layer."""
        rank = len(self.maps) // len(self.head_energy)
        return (component.head - 1) * rank + component.column - 1


class Recorder:
    """Record layers during the first forward pass of each patch, with their maps in files of ``folder``.

    The mirrored passes after it are ignored.
    """

    def __init__(self, layers: Sequence[NMFLayer], folder: Path, with_loadings: bool) -> None:
        self.records: dict[str, LayerRecord] = {}
        self._layers = layers
        self._folder = folder
        self._with_loadings = with_loadings
        self._pending: dict[str, tuple[PatchPosition, Tensor]] = {}  # layers that have not seen the current patch

    def begin(self, size: Sequence[int]) -> None:
        """Start again, with a volume of ``size`` voxels."""
        self.records = {
            layer.name: LayerRecord.empty(layer, size, self._folder, self._with_loadings) for layer in self._layers
        }

    def next_patch(self, position: PatchPosition, gaussian: Tensor) -> None:
        """Announce the next patch and the weights of its voxels."""
        self._pending = dict.fromkeys(self.records, (position, gaussian))

    def attach(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Register hooks on the blocks; the caller removes them."""
        return [layer.block.register_forward_pre_hook(self._hook_of(layer)) for layer in self._layers]

    def _hook_of(self, layer: NMFLayer) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if layer.name in self._pending:
                factors = factorise(layer.mixer, layer.block.mixer_input(inputs[0]), self._with_loadings)
                self.records[layer.name].add(factors, *self._pending.pop(layer.name))

        return hook
