"""Upsample, concatenate with the skip connection, project to the stage's width: as a sum of two products.

Both layers are linear and pointwise, apart from where upsampling puts each voxel of a patch. With the adapter's
weights for skip and upsampled features, A = (A₁ A₂), and the kernel K and bias k of the transposed convolution,

    A (skip; K low + k) = A₁ skip + (A₂ K) low + A₂ k,

so the upsampled features and the concatenation are never computed: at full resolution one product of the stage's width
remains instead of two, and the backward pass needs no additional tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    result = F.linear(skip, for_skip, None if conv.bias is None else for_low @ conv.bias)
    patches = low @ kernel.flatten(1)
    return _add_patches(result, patches, conv.stride)


def _add_patches(volume: Tensor, patches: Tensor, stride: Sequence[int]) -> Tensor:
    """Add (B, *spatial / stride, voxels of a patch · C) in place to the voxels of each patch of (B, *spatial, C)."""
    ndim = len(stride)
    split, order = [volume.shape[0]], [0]
    for axis, (size, length) in enumerate(zip(patches.shape[1:-1], stride, strict=True)):
        split += [size, length]
        order += [1 + axis, 1 + ndim + axis]
    spread = patches.unflatten(-1, (*stride, volume.shape[-1])).permute(*order, 1 + 2 * ndim)
    volume.view(*split, -1).add_(spread)
    return volume
