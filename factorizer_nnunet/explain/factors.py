"""Factors of one NMF layer, put back in space.

A reconstruction U Vᵀ leaves the scale of its factors open. Here every column of U has norm 1, so V carries the scale:
its values are in units of the hidden features (the Euclidean norm, over the head's channels, of what the component
adds to a voxel), and the squared norm of V is the component's energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from factorizer_nnunet.network.layout import from_windows, to_windows
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import decompose, full_precision
from factorizer_nnunet.network.ops.mixer.gram import leading_direction


@dataclass(frozen=True)
class Factors:
    """Components of one layer for one patch: K = heads × rank, the columns of a head next to each other."""

    maps: Tensor  # (K, *spatial), V in space, averaged over shifts
    loadings: Tensor | None  # (K, head_dim, *spatial), the unit column of U of each voxel's window, likewise; or None
    mean_loading: Tensor  # (K, head_dim), mean of the unit columns over windows and shifts, times energy
    energy: Tensor  # (K,), ‖U Vᵀ‖² of each component, summed over windows, averaged over shifts
    head_energy: Tensor  # (heads,), ‖X‖² of each head's input


def factorise(mixer: NMFMixer, x: Tensor, with_loadings: bool = False) -> Factors:
    """Compute the factors of one case from the mixer's input, (1, *spatial, C).

    The loadings in space take ``head_dim`` times the memory of the maps.
    """
    hidden = full_precision(mixer.nonnegative(x))
    spatial, heads, rank = hidden.shape[1:-1], mixer.num_heads, mixer.nmf.rank
    grid = mixer.grid(spatial)
    maps = hidden.new_zeros(1, *spatial, heads * rank)
    loadings = hidden.new_zeros(1, *spatial, heads * rank * mixer.head_dim) if with_loadings else None
    energy = hidden.new_zeros(heads, rank)
    mean_loading = hidden.new_zeros(heads, rank, mixer.head_dim)
    with torch.autocast(device_type=x.device.type, enabled=False):
        for offset in grid.offsets:
            windows = to_windows(hidden, grid, offset, mixer.head_dim)
            u, v = _unit_factors(mixer, windows)
            maps += from_windows(v, grid, offset)
            energies = v.square().sum(-2)  # (1, *windows, heads, R)
            energy += energies.flatten(0, -3).sum(0)
            mean_loading += (u.mT * energies[..., None]).flatten(0, -4).sum(0)
            if loadings is not None:
                everywhere = u.mT.flatten(-2)[..., None, :].expand(*v.shape[:-1], -1)
                loadings += from_windows(everywhere, grid, offset)
        head_energy = hidden.square().flatten(0, -2).sum(0).unflatten(0, (heads, -1)).sum(-1)
    shifts = len(grid.offsets)
    return Factors(
        maps=(maps[0] / shifts).movedim(-1, 0),
        loadings=None
        if loadings is None
        else (loadings[0] / shifts).movedim(-1, 0).reshape(-1, mixer.head_dim, *spatial),
        mean_loading=mean_loading.flatten(0, 1) / shifts,
        energy=energy.flatten() / shifts,
        head_energy=head_energy,
    )


def _unit_factors(mixer: NMFMixer, windows: Tensor) -> tuple[Tensor, Tensor]:
    """U (…, d, R) with columns of norm 1, or 0 in empty windows, and V (…, N, R) for windows (…, N, d)."""
    tiny = torch.finfo(windows.dtype).tiny
    if mixer.nmf.is_power_iteration:  # two passes over the windows instead of two for each update
        first = windows.mT @ mixer.start(windows.mT)[1]
        u = leading_direction(windows.mT @ windows, first, mixer.nmf.num_iters)
        u = u / u.norm(dim=-2, keepdim=True).clamp_min(tiny)
        return u, windows @ u
    u, v = decompose(windows.mT, mixer.start, mixer.nmf)
    norm = u.norm(dim=-2, keepdim=True)
    return u / norm.clamp_min(tiny), v * norm
