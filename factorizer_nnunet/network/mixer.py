"""The context mixer: project, make nonnegative, replace every window by its NMF, project back.

Under autocast the projections are in half precision; between them, all sums over voxels and all updates of factors are
in float32. ``ops.dispatch`` chooses how the NMF is computed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from factorizer_nnunet.network.layout import to_windows
from factorizer_nnunet.network.nmf import NMFSettings, Start, decompose, full_precision
from factorizer_nnunet.network.ops import dispatch
from factorizer_nnunet.network.windows import Family, WindowGrid, axis_shifts, families, spread_over, window_grid

# Gram matrices of smaller blocks are as large as the blocks: then reading the volume once more moves fewer bytes.
MIN_BLOCK_VOXELS = 16


class NMFMixer(nn.Module):
    """Arguments as in ``FactorizerConfig``; ``window_size`` is that of this stage, None for the full axis.

    ``stage_size`` (voxels per axis) is needed only for a stored start, whose V₀ has a value per voxel of a window.
    """

    def __init__(
        self,
        channels: int,
        *,
        head_dim: int,
        window_size: Sequence[int | None],
        shifts: Sequence[float | Sequence[float]],
        border: str,
        nmf: NMFSettings,
        num_shifts: int | None = None,
        stage_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.window_size = tuple(window_size)
        self.shifts = axis_shifts(shifts, len(window_size))
        self.num_shifts = num_shifts
        self.cyclic = border == "cyclic"
        self.nmf = nmf
        self.in_proj = nn.Linear(channels, channels, bias=False)
        self.out_proj = nn.Linear(channels, channels)
        voxels = math.prod(axis.window for axis in self.grid(stage_size).axes) if stage_size is not None else 0
        self.start = Start(head_dim, voxels, nmf.rank, nmf.start)

    @property
    def num_heads(self) -> int:
        """Groups of ``head_dim`` channels, each factorised on its own."""
        return self.in_proj.out_features // self.head_dim

    @contextlib.contextmanager
    def without_head(self, head: int) -> Iterator[None]:
        """Leave one head out of the output while the context is open; ``head`` counts from 0.

        The head's columns of ``out_proj`` are set to zero and restored afterwards, which works for every
        implementation. For inference: gradients and optimizer steps inside the context are not supported.

        Raises:
            IndexError: the mixer has no such head; nothing has changed.
        """
        if not 0 <= head < self.num_heads:
            raise IndexError(f"invalid head={head}: expected 0 to {self.num_heads - 1}")
        with torch.no_grad():
            columns = self.out_proj.weight[:, head * self.head_dim : (head + 1) * self.head_dim]
            saved = columns.clone()
            columns.zero_()
        try:
            yield
        finally:
            with torch.no_grad():
                columns.copy_(saved)

    def grid(self, spatial_size: Sequence[int]) -> WindowGrid:
        """The windows of a stage of this size."""
        return window_grid(spatial_size, self.window_size, spread_over(self.shifts, self.num_shifts), self.cyclic)

    def nonnegative(self, x: Tensor) -> Tensor:
        """The nonnegative features to factorize; x: (B, *spatial, C), same shape out."""
        return F.relu(self.in_proj(x), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns the same shape."""
        return self.out_proj(self.reconstruct(self.nonnegative(x)))

    def reconstruct(self, hidden: Tensor) -> Tensor:
        """Replace every window by its NMF, averaged over shifts; hidden: (B, *spatial, C), from ``nonnegative``."""
        with torch.autocast(device_type=hidden.device.type, enabled=False):
            return dispatch.mix_windows(hidden, self)

    def decompose(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Factors of every shift: U (B, *windows, heads, head_dim, R) and V (B, *windows, heads, voxels, R).

        x: (B, *spatial, C), the mixer's input. ``layout.from_windows`` puts V back in space.
        """
        hidden = full_precision(self.nonnegative(x))
        grid = self.grid(hidden.shape[1:-1])
        with torch.autocast(device_type=hidden.device.type, enabled=False):
            return [
                decompose(to_windows(hidden, grid, offset, self.head_dim).mT, self.start, self.nmf)
                for offset in grid.offsets
            ]

    def families(self, spatial_size: Sequence[int]) -> list[Family]:
        """The windows of a stage of this size, by families of shifts that share blocks."""
        return families(self.grid(spatial_size), MIN_BLOCK_VOXELS)
