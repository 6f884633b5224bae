"""Layers on channels-last tensors (B, *spatial, C): norms and convolutions.

Channels stay last from stem to head, so that every pointwise product is a plain matrix product and no tensor is
permuted in memory; convolutions see the same storage as a channels-last (B, C, *spatial) view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from factorizer_nnunet.network.kernels.choice import can_use_kernels, kernel_precision

_SLICE_BYTES = 2**19  # of a tensor with a slice's voxels: two or three more of them then fit a core's cache
_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_CONV_TRANSPOSE = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_CONV_FUNCTION = {2: F.conv2d, 3: F.conv3d}


def channels_first(x: Tensor) -> Tensor:
    """(B, *spatial, C) seen as (B, C, *spatial); no copy."""
    return x.movedim(-1, 1)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, *spatial) as a contiguous (B, *spatial, C); no copy if the storage is channels last already."""
    return x.movedim(1, -1).contiguous()


def voxels_per_slice(x: Tensor, channels: int) -> int:
    """How many voxels with so many numbers of x's type to work on at once, that they stay in the cache."""
    return max(64, _SLICE_BYTES // (channels * x.element_size()))


class InstanceNorm(nn.Module):
    """Normalise each channel of each case over space, then scale and shift (Ulyanov et al., arXiv 1607.08022)."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns the same shape."""
        if _has_own_backward(x):
            return _InstanceNormOnCPU.apply(x, self.weight, self.bias, self.eps)
        if can_use_kernels(x) and x.dtype != torch.float64:
            scale, shift = (t.reshape(len(x), *[1] * (x.ndim - 2), -1) for t in self.scale_and_shift(x))
            return torch.addcmul(shift, x, scale)
        # One group per channel; unlike torch's instance norm, this kernel works on channels-last storage.
        return channels_last(F.group_norm(channels_first(x), x.shape[-1], self.weight, self.bias, self.eps))

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The norm of x as a factor and an offset for each case and channel, both (B, C); x: (B, *spatial, C)."""
        mean, variance = _moments(x)
        scale = self.weight * (variance + self.eps).rsqrt()
        return scale, self.bias - mean * scale


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    if can_use_kernels(x):
        from factorizer_nnunet.network.kernels.moments import channel_moments  # needs Triton

        return channel_moments(x)
    return _ChannelMoments.apply(x)


class _ChannelMoments(torch.autograd.Function):
    """Mean and variance over the voxels of each case and channel, (B, C) each; x: (B, *spatial, C)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.shape = x.shape
        x = x.flatten(1, -2)
        mean = x.mean(1)
        variance = torch.zeros_like(mean)
        rows = voxels_per_slice(x, x.shape[-1])
        for case in range(x.shape[0]):
            for part in x[case].split(rows):  # squares of a slice stay in the cache
                variance[case] += (part - mean[case]).square().sum(0)
        ctx.save_for_backward(x, mean)
        return mean, variance / x.shape[1]

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad_mean: Tensor, grad_variance: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        slope = 2 * grad_variance / x.shape[1]
        grad = torch.addcmul((grad_mean / x.shape[1] - slope * mean)[:, None], x, slope[:, None])
        return grad.reshape(ctx.shape)


class _InstanceNormOnCPU(torch.autograd.Function):
    """Instance norm on channels-last storage with a backward pass of two sums and one product.

    torch's own backward of group norm takes some 15 times its forward on channels-last storage. With mean m and
    1 / standard deviation r over the N voxels, g the gradient and w the weight,

        dx = g (w r) - x (w r² q) + w r (m r q - Σg / N),   q = r (Σ g x - m Σg) / N.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        channels, voxels = x.shape[-1], x[0, ..., 0].numel()
        y, mean, rstd = torch.native_group_norm(
            channels_first(x), weight, bias, x.shape[0], channels, voxels, channels, eps
        )
        ctx.save_for_backward(x, weight, mean, rstd)
        return channels_last(y)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        x, grad, shape = x.flatten(1, -2), grad.flatten(1, -2), grad.shape
        voxels = x.shape[1]
        sum_grad = grad.sum(1)
        centred = ((grad * x).sum(1) - mean * sum_grad) * rstd  # Σ g (x - m) r, per case and channel
        scale = weight * rstd
        slope = -scale * rstd * centred / voxels
        constant = -scale * sum_grad / voxels - mean * slope
        grad_x = torch.addcmul(torch.addcmul(constant[:, None], x, slope[:, None]), grad, scale[:, None])
        return grad_x.reshape(shape), centred.sum(0), sum_grad.sum(0), None


def _has_own_backward(x: Tensor) -> bool:
    """Whether x is trained on a CPU in full precision, where our backward passes replace torch's slow ones."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def build_norm(name: str, channels: int) -> nn.Module:
    """The norm called ``name`` in ``config_values.NORMS``, over (B, *spatial, channels)."""
    table = {"instance": InstanceNorm, "layer": nn.LayerNorm, "rms": nn.RMSNorm}
    return table[name](channels)


class Conv(nn.Module):
    """Convolution with odd kernels and stride 1; (B, *spatial, C) to (B, *spatial, C'), no bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sequence[int]) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel_size)
        self.conv = _CONV[len(kernel_size)](in_channels, out_channels, tuple(kernel_size), 1, padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns (B, *spatial, C')."""
        return channels_last(self.conv(channels_first(x)))


class Downsample(nn.Module):
    """Strided convolution: each patch of ``stride`` voxels becomes one voxel.

    The kernel is the stride itself, or of odd sizes and then centred, so that neighbouring patches overlap.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        kernel_size, stride = tuple(kernel_size), tuple(stride)
        padding = tuple(0 if k == s else k // 2 for k, s in zip(kernel_size, stride, strict=True))
        self.conv = _CONV[len(stride)](in_channels, out_channels, kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns (B, *spatial / stride, C')."""
        return channels_last(self.conv(channels_first(x)))


class Upsample(nn.Module):
    """Transposed convolution whose kernel is its stride: each voxel becomes one patch of ``stride`` voxels."""

    def __init__(self, in_channels: int, out_channels: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.conv = _CONV_TRANSPOSE[len(stride)](in_channels, out_channels, tuple(stride), tuple(stride))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns (B, *spatial · stride, C')."""
        return channels_last(self.conv(channels_first(x)))


class DepthwiseConv(nn.Module):
    """The input plus its convolution with one odd-sized kernel per channel, stride 1, same size out.

    The sum costs nothing: it is the convolution whose kernels have 1 more at their centre.
    """

    def __init__(self, channels: int, kernel_size: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, *kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        bound = 1 / math.sqrt(math.prod(kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        identity = torch.zeros(1, 1, *kernel_size)
        identity[(0, 0, *(k // 2 for k in kernel_size))] = 1
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *spatial, C); returns the same shape."""
        weight, bias = self.weight + self.identity, self.bias
        precision = kernel_precision(x)
        if precision is not None and max(weight.shape[2:]) <= 3:
            from factorizer_nnunet.network.kernels.depthwise import depthwise  # needs Triton

            return depthwise(x.to(precision), weight, bias)
        x = channels_first(x)
        if x.ndim == 5 and _has_own_backward(x):
            return channels_last(_DepthwiseConv3dOnCPU.apply(x, weight, bias))
        return channels_last(_depthwise(x, weight, bias))


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    padding = tuple(k // 2 for k in weight.shape[2:])
    return _CONV_FUNCTION[x.ndim - 2](x, weight, bias, padding=padding, groups=x.shape[1])


class _DepthwiseConv3dOnCPU(torch.autograd.Function):
    """The same convolution with a backward pass that uses the fast CPU kernels.

    torch's own backward of 3D depthwise convolutions takes some 30 times its forward on channels-last storage. The
    gradient of x is again a depthwise convolution (with flipped kernels), and the gradient of a 3D kernel is a
    sum of 2D ones, plane by plane; both have fast kernels.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _depthwise(x, weight, bias)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        grad_x = _depthwise(grad, weight.flip(2, 3, 4), None) if ctx.needs_input_grad[0] else None
        grad_weight = _depthwise_weight_grad(x, grad, weight) if ctx.needs_input_grad[1] else None
        grad_bias = grad.sum((0, 2, 3, 4)) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias


def _depthwise_weight_grad(x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of a 3D depthwise kernel; x, grad: (B, C, D, H, W); returns (C, 1, *kernel)."""
    channels, depth, kernel = x.shape[1], x.shape[2], weight.shape[2:]
    padding = [kernel[1] // 2, kernel[2] // 2]
    result = torch.zeros_like(weight)
    for offset in range(kernel[0]):
        # Plane z of the output saw plane z + shift of the input at this depth of the kernel.
        shift = offset - kernel[0] // 2
        low, high = max(0, -shift), min(depth, depth - shift)
        if low >= high:
            continue
        for x_case, grad_case in zip(x, grad, strict=True):
            _, part, _ = torch.ops.aten.convolution_backward(
                grad_case[:, low:high].movedim(1, 0),
                x_case[:, low + shift : high + shift].movedim(1, 0),
                weight[:, :, offset],
                None,
                [1, 1],
                padding,
                [1, 1],
                False,
                [0, 0],
                channels,
                [False, True, False],
            )
            result[:, :, offset] += part
    return result
