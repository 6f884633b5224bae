"""The NMF branch layer by layer, and the NMF of all windows, one shift after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from factorizer_nnunet.network.layout import from_windows, to_windows
from factorizer_nnunet.network.nmf import NMFSettings, Start, decompose, full_precision
from factorizer_nnunet.network.windows import Family, WindowGrid

# The low-rank reconstruction of matrices X = windows.mT, windows: (..., voxels, head_dim), same shape out.
Reconstruct = Callable[[Tensor, Start, NMFSettings], Tensor]


class MixerLayer(Protocol):
    """What the operations read of a ``network.mixer.NMFMixer``."""

    head_dim: int
    nmf: NMFSettings
    start: Start
    in_proj: nn.Linear
    out_proj: nn.Linear

    def __call__(self, x: Tensor) -> Tensor: ...

    def grid(self, spatial_size: Sequence[int]) -> WindowGrid: ...

    def families(self, spatial_size: Sequence[int]) -> list[Family]: ...


def normed_mixer(x: Tensor, norm: nn.Module, mixer: MixerLayer, *, residual: bool) -> Tensor:
    """mixer(norm(x)), or with ``residual`` x + mixer(norm(x)); x: (B, *spatial, C), same shape out."""
    mixed = mixer(norm(x))
    return x + mixed if residual else mixed


def iterate(windows: Tensor, start: Start, nmf: NMFSettings) -> Tensor:
    """U Vᵀ by plain iteration, for any rank, solver and start."""
    u, v = decompose(windows.mT, start, nmf)
    return v @ u.mT


def mix_windows(x: Tensor, mixer: MixerLayer, reconstruct: Reconstruct = iterate) -> Tensor:
    """Replace every window of every head by its NMF, averaged over shifts.

    x: (B, *spatial, C), nonnegative; returns the same shape. Call it with autocast off.
    """
    grid = mixer.grid(x.shape[1:-1])
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for offset in grid.offsets:
        windows = full_precision(to_windows(x, grid, offset, mixer.head_dim))
        total = total + from_windows(reconstruct(windows, mixer.start, mixer.nmf), grid, offset)
    return (total / len(grid.offsets)).to(x.dtype)
