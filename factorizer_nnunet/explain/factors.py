"""Factors of one block, folded back to space.

A reconstruction U Vᵀ leaves the scale of its factors open. Here every column of U has norm 1, so that V carries the
size: its values are in units of the hidden features (the Euclidean norm, over the head's channels, of what the
component puts into a voxel), and the squared norm of V is the component's energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from factorizer_nnunet.network.blocks import FactorizerBlock
from factorizer_nnunet.network.gram import leading_direction
from factorizer_nnunet.network.layout import from_windows, to_windows
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import decompose, full_precision


@dataclass(frozen=True)
class Factors:
    """Components of one block for one patch, K = heads × rank of them, the columns of a head side by side.

    Attributes:
        maps: (K, *spatial), V in space, averaged over shifts.
        loadings: (K, head_dim, *spatial), the unit columns of U in whose windows a voxel lies, averaged over shifts;
            None if not asked for.
        mean_loading: (K, head_dim), mean of the unit columns over windows and shifts, times ``energy``.
        energy: (K,), ‖U Vᵀ‖² of each component, summed over windows, averaged over shifts.
        head_energy: (heads,), ‖X‖² of what each head factorises.
    """

    maps: Tensor
    loadings: Tensor | None
    mean_loading: Tensor
    energy: Tensor
    head_energy: Tensor


def mixer_input(block: FactorizerBlock, x: Tensor) -> Tensor:
    """What the mixer of a block is given if the block is given x, both (B, *spatial, C).

    On the CPU large volumes go through a block without a call of its norm and its mixer, so hooks on them see nothing.
    """
    return block.norm1(x if block.depthwise is None else block.depthwise(x))


def factorise(mixer: NMFMixer, x: Tensor, with_loadings: bool = False) -> Factors:
    """The factors of one case.

    Args:
        mixer: of a block.
        x: (1, *spatial, C), the mixer's input.
        with_loadings: whether the loadings are put in space, too; that is ``head_dim`` times the maps.
    """
    hidden = full_precision(mixer.nonnegative(x))
    grid = mixer.grid(x.shape[1:-1])
    num_axes, num_shifts = len(grid.axes), len(grid.offsets)
    heads = hidden.shape[-1] // mixer.head_dim
    maps = loadings = energy = mean_loading = 0
    with torch.autocast(device_type=x.device.type, enabled=False):
        for offset in grid.offsets:
            windows = to_windows(hidden, grid, offset, mixer.head_dim)
            u, v = _unit_factors(mixer, windows)
            maps = maps + from_windows(v, grid, offset)
            energies = v.square().sum(-2)  # (1, *windows, heads, R)
            energy = energy + energies.flatten(0, num_axes).sum(0)
            mean_loading = mean_loading + (u.mT * energies[..., None]).flatten(0, num_axes).sum(0)
            if with_loadings:
                everywhere = u.mT.flatten(-2)[..., None, :].expand(*v.shape[:-1], -1)
                loadings = loadings + from_windows(everywhere, grid, offset)
        squares = hidden.square().flatten(0, -2).sum(0)
    spatial = hidden.shape[1:-1]
    return Factors(
        maps=(maps[0] / num_shifts).movedim(-1, 0),
        loadings=(loadings[0] / num_shifts).movedim(-1, 0).reshape(-1, mixer.head_dim, *spatial)
        if with_loadings
        else None,
        mean_loading=mean_loading.reshape(-1, mixer.head_dim) / num_shifts,
        energy=energy.flatten() / num_shifts,
        head_energy=squares.unflatten(0, (heads, -1)).sum(-1),
    )


def _unit_factors(mixer: NMFMixer, windows: Tensor) -> tuple[Tensor, Tensor]:
    """U (…, d, R) with columns of norm 1, or 0 where nothing is, and V (…, N, R) of windows (…, N, d)."""
    tiny = torch.finfo(windows.dtype).tiny
    if mixer.nmf.is_power_iteration:  # two passes over the windows instead of two for each update
        first = windows.mT @ mixer.start(windows.mT)[1]
        u = leading_direction(windows.mT @ windows, first, mixer.nmf.num_iters)
        u = u / u.norm(dim=-2, keepdim=True).clamp_min(tiny)
        return u, windows @ u
    u, v = decompose(windows.mT, mixer.start, mixer.nmf)
    size = u.norm(dim=-2, keepdim=True)
    return u / size.clamp_min(tiny), v * size
