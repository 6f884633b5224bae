"""A norm fused with the linear layer that follows it, for operations that take a volume a slice at a time.

A layer norm is computed with each slice. An instance norm, y = s x + t with s and t for each case and channel, is
folded into the linear layer: W y + b = (W diag(s)) x + (W t + b), so that every case has its own matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class FoldableNorm(nn.Module):
    """Base class of norms that, for a given x, scale and shift each channel of each case."""

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Factor and offset for each case and channel, (B, C) each; x: (B, *spatial, C)."""
        raise NotImplementedError


FusableNorm = FoldableNorm | nn.LayerNorm  # the norms that the fused operations take


class NormalizedVoxels(NamedTuple):
    """Voxels of a case, (n, C) each, before and after a layer norm; the same where the norm is folded."""

    case: int
    before: Tensor
    after: Tensor
    moments: tuple[Tensor, Tensor] | None = None  # mean and 1 / standard deviation of each voxel


class NormAndLinear(NamedTuple):
    """A linear layer and, unless it is folded into it, the layer norm before it; or the gradients of both."""

    weight: Tensor  # (1 or B, H, C), for all cases or for each
    bias: Tensor | None  # (1 or B, H)
    scale: Tensor | None = None  # (C,), of the layer norm; None where the norm is folded
    shift: Tensor | None = None  # (C,)
    eps: float = 0.0

    @classmethod
    def fold(cls, norm: FusableNorm, x: Tensor, weight: Tensor, bias: Tensor | None) -> NormAndLinear:
        """Norm and linear layer for slices of x: (B, *spatial, C); weight: (H, C); bias: (H,) or None."""
        if isinstance(norm, nn.LayerNorm):
            return cls(weight[None], None if bias is None else bias[None], norm.weight, norm.bias, norm.eps)
        factor, offset = norm.scale_and_shift(x)
        moved = offset @ weight.mT
        return cls(weight * factor[:, None], moved if bias is None else bias + moved)

    def norm(self, voxels: Tensor, case: int) -> NormalizedVoxels:
        """Apply the norm to voxels (n, C)."""
        if self.scale is None:
            return NormalizedVoxels(case, voxels, voxels)
        y, mean, rstd = torch.native_layer_norm(voxels, self.scale.shape, self.scale, self.shift, self.eps)
        return NormalizedVoxels(case, voxels, y, (mean, rstd))

    def linear(self, voxels: NormalizedVoxels, out: Tensor | None = None) -> Tensor:
        """Apply the linear layer to n voxels; returns (n, H), in ``out`` if given."""
        matrix = _of_case(self.weight, voxels.case).mT
        if self.bias is None:
            return torch.mm(voxels.after, matrix, out=out)
        return torch.addmm(_of_case(self.bias, voxels.case), voxels.after, matrix, out=out)

    def zeros(self) -> NormAndLinear:
        """Gradients to which ``backward`` adds."""
        bias, scale, shift = (
            None if tensor is None else torch.zeros_like(tensor) for tensor in (self.bias, self.scale, self.shift)
        )
        return NormAndLinear(torch.zeros_like(self.weight), bias, scale, shift)

    def backward(
        self, sums: NormAndLinear, voxels: NormalizedVoxels, grad: Tensor, residual: Tensor, out: Tensor | None = None
    ) -> Tensor:
        """Add the gradients of some voxels to ``sums``; returns ``residual`` + dL/dx, (n, C), in ``out`` if given.

        grad: dL/d ``linear``, (n, H); residual: the gradient that bypasses both layers, (n, C).
        """
        matrix = _of_case(self.weight, voxels.case)
        _of_case(sums.weight, voxels.case).addmm_(grad.mT, voxels.after)
        if sums.bias is not None:
            _of_case(sums.bias, voxels.case).add_(grad.sum(0))
        if self.scale is None or sums.scale is None or sums.shift is None or voxels.moments is None:
            return torch.addmm(residual, grad, matrix, out=out)  # folded
        grad_x, scale, shift = torch.ops.aten.native_layer_norm_backward(
            grad @ matrix,
            voxels.before,
            self.scale.shape,
            *voxels.moments,
            self.scale,
            self.shift,
            [True, True, True],
        )
        sums.scale.add_(scale)
        sums.shift.add_(shift)
        return torch.add(grad_x, residual, out=grad_x if out is None else out)


def fold_scale_and_shift(norm: FusableNorm, x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Scale, shift and ε of a layer norm, (1, C) each; or scale and shift of a foldable norm for x, (B, C), and -1.

    x: (B, *spatial, C).
    """
    if isinstance(norm, nn.LayerNorm):
        return norm.weight[None], norm.bias[None], norm.eps
    scale, shift = norm.scale_and_shift(x)
    return scale, shift, -1.0


def _of_case(values: Tensor, case: int) -> Tensor:
    """The entry of a case; a single entry belongs to all cases."""
    return values[case if values.shape[0] > 1 else 0]
