"""Device functions for norms of a tile (voxels, channels) in float32.

A layer norm is computed from each voxel's channels. An instance norm comes as scale and shift of x itself
(``linear_fusion``).
"""

from __future__ import annotations

import triton
from triton import language as tl


@triton.jit
def load_norm(scale_ptr, shift_ptr, case, channels, mask, num_channels, is_layer_norm: tl.constexpr):
    """Scale and shift, (C,) each, of a layer norm (1, C) or of an instance norm for a case (cases, C)."""
    offsets = channels if is_layer_norm else case * num_channels + channels
    return tl.load(scale_ptr + offsets, mask, 0.0), tl.load(shift_ptr + offsets, mask, 0.0)


@triton.jit
def standardize(x, mask, num_channels, eps, is_layer_norm: tl.constexpr):
    """What scale and shift of a norm are applied to, and 1 / standard deviation of each voxel (1 without a layer norm).

    x: (voxels, C); mask: (C,).
    """
    if is_layer_norm:
        mean = tl.sum(x, 1) / num_channels
        x = tl.where(mask[None, :], x - mean[:, None], 0.0)
        rstd = tl.rsqrt(tl.sum(x * x, 1) / num_channels + eps)
        x = x * rstd[:, None]
    else:
        rstd = tl.full([x.shape[0]], 1.0, tl.float32)
    return x, rstd


@triton.jit
def apply_norm(x, scale, shift, mask, num_channels, eps, is_layer_norm: tl.constexpr):
    """The norm of x in the type of x, and what ``norm_gradient`` needs: both results of ``standardize``."""
    standardized, rstd = standardize(x.to(tl.float32), mask, num_channels, eps, is_layer_norm)
    return (standardized * scale[None, :] + shift[None, :]).to(x.dtype), standardized, rstd


@triton.jit
def norm_gradient(grad, standardized, rstd, scale, num_channels, is_layer_norm: tl.constexpr):
    """dL/dx from dL/d(norm); standardized, rstd: from ``standardize``; scale: of the norm, 0 beyond the channels."""
    grad = grad * scale[None, :]
    if is_layer_norm:
        mean = tl.sum(grad, 1) / num_channels
        slope = tl.sum(grad * standardized, 1) / num_channels
        grad = (grad - mean[:, None] - standardized * slope[:, None]) * rstd[:, None]
    return grad
