"""nnU-Net's resampling of logits to the image's grid, axis by axis.

nnU-Net interpolates linearly, or takes the nearest voxel along the axis of thick slices. Both are products of one map
for each axis: a target voxel is a mean of two source voxels per axis. Who knows the maps can compute any part of the
result, so that the complete one never has to exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet
from torch import Tensor

_LINEAR, _NEAREST = 1, 0  # orders of splines
# Defaults of the two functions, where plans leave them out.
_DEFAULTS: dict[Callable[..., Any], dict[str, Any]] = {
    resample_data_or_seg_to_shape: {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": False},
    resample_torch_fornnunet: {
        "is_seg": False,
        "mode": "linear",
        "aniso_axis_mode": "nearest-exact",
        "force_separate_z": None,
    },
}
_IRRELEVANT = {"num_threads", "device", "memefficient_seg_resampling"}  # they do not change the result


@dataclass(frozen=True)
class AxisMap:
    """Along one axis, target voxel i is ``(1 - weight[i]) * source[low[i]] + weight[i] * source[high[i]]``.

    Attributes:
        low, high: source voxels, (target size,), int64.
        weight: of ``high``, (target size,), float64, from 0 to 1.
        is_identity: nothing is resampled along this axis.
    """

    low: Tensor
    high: Tensor
    weight: Tensor
    is_identity: bool

    def sources_of(self, part: slice) -> slice:
        """The source voxels that some target voxels are means of."""
        if self.is_identity:
            return part
        return slice(int(self.low[part.start]), int(self.high[part.stop - 1]) + 1)

    def interpolate(self, values: Tensor, axis: int, part: slice) -> Tensor:
        """Interpolate along an axis.

        Args:
            values: of the source voxels that ``sources_of(part)`` names.
            axis: of ``values``.
            part: target voxels to compute.
        """
        if self.is_identity:
            return values
        first = self.low[part.start]
        below = values.index_select(axis, self.low[part] - first)
        if self.low is self.high:
            return below
        weight = self.weight[part].to(values.dtype).view(-1, *[1] * (values.ndim - 1 - axis))
        return below.lerp_(values.index_select(axis, self.high[part] - first), weight)

    def to(self, device: torch.device) -> AxisMap:
        """The same map where the values are."""
        low = self.low.to(device)
        high = low if self.low is self.high else self.high.to(device)
        return AxisMap(low, high, self.weight.to(device), self.is_identity)

    def targets_of(self, first: int, last: int) -> tuple[int, int]:
        """Start and end (exclusive) of the target voxels that the source voxels first to last have a part in."""
        start = int(torch.searchsorted(self.high, first))
        return start, int(torch.searchsorted(self.low, last, right=True))


def linear_map(source: int, target: int) -> AxisMap:
    """Linear interpolation between the centres of voxels; constant beyond the first and the last centre."""
    if source == target:
        return _identity(source)
    position = ((torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5).clamp(0, source - 1)
    low = position.floor().long()
    return AxisMap(low, (low + 1).clamp(max=source - 1), position - low, False)


def nearest_map(source: int, target: int) -> AxisMap:
    """The source voxel whose centre is nearest; the upper one of two."""
    if source == target:
        return _identity(source)
    position = (torch.arange(target, dtype=torch.float64) + 0.5) * (source / target)
    nearest = position.floor().long().clamp(0, source - 1)
    return AxisMap(nearest, nearest, torch.zeros(target, dtype=torch.float64), False)


def axis_maps(
    resample: Callable[..., Any],
    source: Sequence[int],
    target: Sequence[int],
    source_spacing: Sequence[float],
    target_spacing: Sequence[float],
) -> tuple[AxisMap, ...] | None:
    """The maps that together are what a resampling function of nnU-Net's plans computes for logits.

    Args:
        resample: ``ConfigurationManager.resampling_fn_probabilities``.
        source, target: shapes.
        source_spacing, target_spacing: mm, in the order of the shapes.

    Returns:
        one map for each axis; None if the function or its options are not known, or not a product of such maps.
    """
    settings = _settings(resample)
    if settings is None:
        return None
    order, order_z, separate_z, threshold = settings
    separate, thick = determine_do_sep_z_and_axis(separate_z, source_spacing, target_spacing, threshold)
    if order != _LINEAR or (separate and order_z not in (_LINEAR, _NEAREST)):
        return None
    orders = [order_z if separate and axis == thick else order for axis in range(len(source))]
    return tuple(
        linear_map(before, after) if one == _LINEAR else nearest_map(before, after)
        for one, before, after in zip(orders, source, target, strict=True)
    )


def keeps_type(resample: Callable[..., Any]) -> bool:
    """Whether the function rounds its result to the type of its input, such as half precision."""
    return (resample.func if isinstance(resample, partial) else resample) is resample_data_or_seg_to_shape


def _settings(resample: Callable[..., Any]) -> tuple[int, int, bool | None, float] | None:
    """Order in general and along thick slices, whether slices are resampled one by one (None: decide), and from which
    ratio of voxel sizes."""
    function, given = (resample.func, resample.keywords) if isinstance(resample, partial) else (resample, {})
    if function not in _DEFAULTS or isinstance(resample, partial) and resample.args:
        return None
    options = {"separate_z_anisotropy_threshold": ANISO_THRESHOLD, **_DEFAULTS[function]}
    if set(given) - set(options) - _IRRELEVANT or given.get("is_seg"):
        return None
    options |= given
    separate_z, threshold = options["force_separate_z"], options["separate_z_anisotropy_threshold"]
    if function is resample_data_or_seg_to_shape:
        return options["order"], options["order_z"], separate_z, threshold
    if (options["mode"], options["aniso_axis_mode"]) != ("linear", "nearest-exact"):
        return None
    return _LINEAR, _NEAREST, separate_z, threshold


def _identity(size: int) -> AxisMap:
    index = torch.arange(size)
    return AxisMap(index, index, torch.zeros(size, dtype=torch.float64), True)
