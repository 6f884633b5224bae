"""Hooks that take the factors of chosen blocks while nnU-Net predicts, patch by patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from factorizer_nnunet.explain.blending import BlendedMaps, PatchPlace
from factorizer_nnunet.explain.factors import Factors, factorise, mixer_input
from factorizer_nnunet.explain.sites import Site


class SiteRecord:
    """What is known of the components of one block after some patches; sums are over patches, overlaps included.

    Attributes:
        maps: (K, …), on the stage's grid.
        loadings: (K × head_dim, …), or None.
        mean_loading, energy, head_energy: as in ``Factors``, summed.
    """

    def __init__(self, site: Site, size: Sequence[int], folder: Path, with_loadings: bool) -> None:
        count = site.num_heads * site.rank
        stride = (1,) * (len(size) - len(site.stride)) + site.stride  # patches of 2D are slices of a volume
        self.maps = BlendedMaps(folder / f"{site.name}_maps.npy", count, size, stride)
        self.loadings = (
            BlendedMaps(folder / f"{site.name}_loadings.npy", count * site.head_dim, size, stride)
            if with_loadings
            else None
        )
        self.mean_loading = torch.zeros(count, site.head_dim, dtype=torch.float64)
        self.energy = torch.zeros(count, dtype=torch.float64)
        self.head_energy = torch.zeros(site.num_heads, dtype=torch.float64)

    def add(self, factors: Factors, place: PatchPlace, gaussian: Tensor) -> None:
        """Add one patch."""
        for blended, values in ((self.maps, factors.maps), (self.loadings, factors.loadings)):
            if blended is not None:
                spatial = values.shape[-len(gaussian.shape) :]
                thick = (1,) * (len(place.sizes) - len(spatial))
                blended.add(values.reshape(len(blended), *thick, *spatial), place, gaussian.reshape(place.sizes))
        self.mean_loading += factors.mean_loading.cpu().double()
        self.energy += factors.energy.cpu().double()
        self.head_energy += factors.head_energy.cpu().double()


class Recorder:
    """Records sites during the first forward pass of each patch; mirrored ones, which follow it, are left alone.

    Args:
        sites: what to record.
        folder: for the maps, which are files.
        with_loadings: whether loadings are recorded in space, too.
    """

    def __init__(self, sites: Sequence[Site], folder: Path, with_loadings: bool) -> None:
        self.records: dict[str, SiteRecord] = {}
        self._sites = sites
        self._folder = folder
        self._with_loadings = with_loadings
        self._place: PatchPlace | None = None
        self._gaussian: Tensor | None = None
        self._seen: set[str] = set()

    def begin(self, size: Sequence[int], gaussian: Tensor) -> None:
        """Start over with a volume of so many voxels, whose patches have these weights."""
        self.records = {site.name: SiteRecord(site, size, self._folder, self._with_loadings) for site in self._sites}
        self._gaussian = gaussian

    def next_patch(self, place: PatchPlace) -> None:
        """Say where the next patch lies."""
        self._place = place
        self._seen.clear()

    def attach(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Hang hooks on the blocks; the caller removes them."""
        return [site.block.register_forward_pre_hook(self._hook_of(site)) for site in self._sites]

    def _hook_of(self, site: Site) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if site.name not in self._seen:
                self._seen.add(site.name)
                factors = factorise(site.block.mixer, mixer_input(site.block, inputs[0]), self._with_loadings)
                self.records[site.name].add(factors, self._place, self._gaussian)

        return hook
