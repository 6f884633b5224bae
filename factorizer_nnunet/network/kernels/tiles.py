"""Pieces that the kernels share: norms and GELU of a tile (voxels, channels) in float32."""

from __future__ import annotations

import triton
from triton import language as tl


@triton.jit
def normalise(x, exists, channels, eps, layer: tl.constexpr):
    """What scale and shift of a norm act on, and 1 / standard deviation.

    For a layer norm each voxel's channels less their mean, over their deviation. An instance norm comes as scale and
    shift of x itself (``folding``), so x is given back.
    """
    if layer:
        mean = tl.sum(x, 1) / channels
        x = tl.where(exists[None, :], x - mean[:, None], 0.0)
        rstd = tl.rsqrt(tl.sum(x * x, 1) / channels + eps)
        x = x * rstd[:, None]
    else:
        rstd = tl.full([x.shape[0]], 1.0, tl.float32)
    return x, rstd


@triton.jit
def through_norm(grad, base, rstd, scale, channels, layer: tl.constexpr):
    """dL/dx from dL/d(norm); base, rstd: from ``normalise``; scale: of the norm, 0 beyond the channels."""
    grad = grad * scale[None, :]
    if layer:
        mean = tl.sum(grad, 1) / channels
        slope = tl.sum(grad * base, 1) / channels
        grad = (grad - mean[:, None] - base * slope[:, None]) * rstd[:, None]
    return grad


@triton.jit
def _normal(x):
    """Distribution Φ and density φ of the normal distribution, with an error below 1e-7.

    Φ(-|x|) by Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: half as long as the error function.
    """
    bell = tl.exp(-0.5 * x * x)
    t = 1.0 / (1.0 + 0.23164189 * tl.abs(x))
    tail = (
        0.5 * t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * bell
    )
    return tl.where(x >= 0, 1.0 - tail, tail), bell * 0.3989422804014327


@triton.jit
def gelu(x):
    """x Φ(x)."""
    below, density = _normal(x)
    return x * below


@triton.jit
def gelu_slope(x):
    """Its derivative, Φ(x) + x φ(x)."""
    below, density = _normal(x)
    return below + x * density
