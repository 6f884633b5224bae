"""What the branches that go through the volume in parts (``residual_mlp``, ``residual_mixer``) have in common.

A layer norm is computed with each part. An instance norm, y = s x + t with s and t for each case and channel, is folded
into the linear layer behind it: W y + b = (W diag(s)) x + (W t + b), so that every case has a matrix of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from factorizer_nnunet.network.layers import InstanceNorm, voxels_per_slice


class Normed(NamedTuple):
    """Voxels of a case, (n, C) each, before and after a layer norm; the same where the norm is folded in."""

    case: int
    before: Tensor
    after: Tensor
    mean: Tensor | None = None
    rstd: Tensor | None = None  # 1 / standard deviation


class NormAndLinear(NamedTuple):
    """A linear layer and, unless it is folded in, the layer norm before it; or the gradients of both."""

    scale: Tensor | None  # (C,), of the layer norm; None where the norm is folded in
    shift: Tensor | None  # (C,)
    weight: Tensor  # (1 or B, H, C), for all cases or for each
    bias: Tensor | None  # (1 or B, H)
    eps: float | None = None

    def norm(self, voxels: Tensor, case: int) -> Normed:
        """voxels: (n, C)."""
        if self.scale is None:
            return Normed(case, voxels, voxels)
        return Normed(
            case, voxels, *torch.native_layer_norm(voxels, self.scale.shape, self.scale, self.shift, self.eps)
        )

    def linear(self, normed: Normed, out: Tensor | None = None) -> Tensor:
        """The linear layer of n voxels, (n, H), in ``out`` if given."""
        matrix = of_case(self.weight, normed.case).mT
        if self.bias is None:
            return torch.mm(normed.after, matrix, out=out)
        return torch.addmm(of_case(self.bias, normed.case), normed.after, matrix, out=out)

    def zeros(self) -> NormAndLinear:
        """Gradients to which ``backward`` adds."""
        return NormAndLinear(*(None if tensor is None else torch.zeros_like(tensor) for tensor in self[:-1]))

    def backward(
        self, sums: NormAndLinear, normed: Normed, grad: Tensor, above: Tensor, out: Tensor | None = None
    ) -> Tensor:
        """Add the gradients of some voxels to ``sums``; returns ``above`` + dL/dx, (n, C), in ``out`` if given.

        grad: dL/d ``linear``, (n, H); above: the gradient that passes by both layers, (n, C).
        """
        matrix = of_case(self.weight, normed.case)
        of_case(sums.weight, normed.case).addmm_(grad.mT, normed.after)
        if sums.bias is not None:
            of_case(sums.bias, normed.case).add_(grad.sum(0))
        if self.scale is None:
            return torch.addmm(above, grad, matrix, out=out)
        through, scale, shift = torch.ops.aten.native_layer_norm_backward(
            grad @ matrix,
            normed.before,
            self.scale.shape,
            normed.mean,
            normed.rstd,
            self.scale,
            self.shift,
            [True, True, True],
        )
        sums.scale.add_(scale)
        sums.shift.add_(shift)
        return torch.add(through, above, out=through if out is None else out)


def goes_in_parts(x: Tensor, norm: nn.Module) -> bool:
    """Whether parts are implemented for x: on the CPU, in full precision, for these norms, not while compiling."""
    return (
        x.device.type == "cpu"
        and isinstance(norm, InstanceNorm | nn.LayerNorm)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def fold(norm: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> NormAndLinear:
    """Norm and linear layer for parts of x: (B, *spatial, C); weight: (H, C), bias: (H,) if there is one."""
    if isinstance(norm, nn.LayerNorm):
        return NormAndLinear(norm.weight, norm.bias, weight[None], None if bias is None else bias[None], norm.eps)
    factor, offset = norm.scale_and_shift(x)
    moved = offset @ weight.mT
    return NormAndLinear(None, None, weight * factor[:, None], moved if bias is None else bias + moved)


def fold_scale_and_shift(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Scale and shift of a layer norm, (1, C), and its ε; or those that an instance norm is for x, (B, C), and -1.

    norm: an instance or layer norm; x: (B, *spatial, C).
    """
    if isinstance(norm, nn.LayerNorm):
        return norm.weight[None], norm.bias[None], norm.eps
    return *norm.scale_and_shift(x), -1.0


def of_case(values: Tensor, case: int) -> Tensor:
    """What belongs to a case; a single entry belongs to all."""
    return values[case if values.shape[0] > 1 else 0]


def slices(x: Tensor, hidden: int) -> list[tuple[int, slice]]:
    """Case and voxels of every slice of (B, *spatial, C) that fits the cache with ``hidden`` channels."""
    voxels = x[0, ..., 0].numel()
    step = voxels_per_slice(x, hidden)
    return [(case, slice(start, start + step)) for case in range(x.shape[0]) for start in range(0, voxels, step)]


def rows(x: Tensor, case: int, part: slice) -> Tensor:
    """Voxels of a case as (n, C), a view of x."""
    return x[case].reshape(-1, x.shape[-1])[part]
