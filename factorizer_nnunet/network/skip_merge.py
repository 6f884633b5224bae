"""Upsample, concatenate behind the skip connection, bring to the stage's width: as two products that add up.

Both layers are linear and pointwise but for the place that upsampling gives each voxel of a patch. With the adapter's
weights for skip and upsampled features, A = (A₁ A₂), and the kernel K and bias k of the transposed convolution,

    A (skip; K low + k) = A₁ skip + (A₂ K) low + A₂ k,

so the upsampled features and the concatenation are never formed: at full resolution one product of the stage's width is
left of two, and nothing is kept for the backward pass that is not there anyway.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from factorizer_nnunet.network.layers import Upsample


def upsample_and_adapt(skip: Tensor, low: Tensor, upsample: Upsample, adapter: nn.Linear) -> Tensor:
    """adapter(skip, upsample(low)), channels concatenated; adapter without bias.

    skip: (B, *spatial, C); low: (B, *spatial / stride, C'); returns (B, *spatial, C'').
    """
    conv = upsample.conv
    width = skip.shape[-1]
    for_skip, for_low = adapter.weight[:, :width], adapter.weight[:, width:]
    kernel = conv.weight.flatten(2).permute(0, 2, 1) @ for_low.mT  # (C', voxels of a patch, C'')
    result = F.linear(skip, for_skip, for_low @ conv.bias)
    patches = low @ kernel.flatten(1)
    return _add_patches(result, patches, conv.stride)


def _add_patches(volume: Tensor, patches: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Add (B, *spatial / stride, voxels of a patch · C) in place to the voxels of each patch of (B, *spatial, C)."""
    ndim = len(stride)
    split, order = [volume.shape[0]], [0]
    for axis, (size, length) in enumerate(zip(patches.shape[1:-1], stride, strict=True)):
        split += [size, length]
        order += [1 + axis, 1 + ndim + axis]
    spread = patches.unflatten(-1, (*stride, volume.shape[-1])).permute(*order, 1 + 2 * ndim)
    volume.view(*split, -1).add_(spread)
    return volume
