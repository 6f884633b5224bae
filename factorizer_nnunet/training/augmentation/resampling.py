"""Sample a rotated and scaled patch from a box, on the device, as batchgeneratorsv2's ``SpatialTransform`` does.

Images are interpolated linearly. For labels, batchgeneratorsv2 interpolates the indicator of each label, rounds it to
half precision and takes the largest. Interpolation of an indicator adds the weights of those corners of the surrounding
cell that have the label, so the labels of the corners (8 in 3D) decide, however many labels the case has, and the host
need not know them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

_SCORE = 1000  # half precision has a spacing of 0.5 there: batchgeneratorsv2 calls scores equal that differ by less


def sampled_positions(affine: Sequence[Sequence[float]], patch: Sequence[int], device: torch.device) -> list[Tensor]:
    """The position in the box of each voxel of the patch: a tensor (*patch) per axis, in voxels.

    Args:
        affine: as in ``spatial.Box``.
        patch: its size.
        device: where the tensors lie.
    """
    # Sums of broadcast lines: a matrix product could run in TF32, which is wrong by a tenth of a voxel.
    dim = len(patch)
    lines = []
    for axis, size in enumerate(patch):
        line = torch.arange(size, dtype=torch.float32, device=device) - (size - 1) / 2
        lines.append(line.view([-1 if other == axis else 1 for other in range(dim)]))
    return [
        sum((weight * line for weight, line in zip(row, lines, strict=False)), start=lines[0] * 0 + row[-1])
        for row in affine
    ]


def sample_image(image: Tensor, positions: Sequence[Tensor]) -> Tensor:
    """Interpolate linearly; outside of the box is 0.

    Args:
        image: (C, *box).
        positions: from :func:`sampled_positions`.

    Returns:
        (C, *patch).
    """
    # In grid_sample's coordinates, the box reaches from -1 to 1, and the last axis comes first.
    normalised = [(2 * position + 1) / size - 1 for position, size in zip(positions, image.shape[1:], strict=True)]
    grid = torch.stack(normalised[::-1], dim=-1)
    return grid_sample(image[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)[0]


def sample_labels(labels: Tensor, positions: Sequence[Tensor], outside: int) -> Tensor:
    """The label with the largest interpolated indicator; equal ones are decided by the nearest voxel.

    Args:
        labels: (C, *box), integers.
        positions: from :func:`sampled_positions`.
        outside: label of all voxels outside of the box.

    Returns:
        (C, *patch), of the same type.
    """
    padded = pad(labels, (1, 1) * len(positions), value=outside)  # so that no voxel needs a mask
    corners, weights = _corners(padded, positions)
    nearest = _labels_at(padded, [_offsets(position.round(), padded, axis) for axis, position in enumerate(positions)])
    best, best_score = corners[0], _score(corners[0], corners, weights)
    for corner in corners[1:]:
        score = _score(corner, corners, weights)
        better = (score > best_score) | ((score == best_score) & (corner < best))
        best, best_score = torch.where(better, corner, best), torch.maximum(score, best_score)
    return torch.where(_score(nearest, corners, weights) == best_score, nearest, best)


def _corners(padded: Tensor, positions: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Labels and weights of the corners of the cells in which positions lie. What an axis needs is made once."""
    offsets, shares = [], []
    for axis, position in enumerate(positions):
        cell = position.floor()
        fraction = position - cell
        offsets.append((_offsets(cell, padded, axis), _offsets(cell + 1, padded, axis)))
        shares.append((1 - fraction, fraction))
    labels, weights = [], []
    for upper in itertools.product((0, 1), repeat=len(positions)):
        labels.append(_labels_at(padded, [own[u] for own, u in zip(offsets, upper, strict=True)]))
        weights.append(functools.reduce(torch.mul, [own[u] for own, u in zip(shares, upper, strict=True)]))
    return labels, weights


def _offsets(voxels: Tensor, padded: Tensor, axis: int) -> Tensor:
    """What an axis adds to the place in memory of voxels, which are numbered without the border."""
    return (voxels + 1).clamp(0, padded.shape[1 + axis] - 1).int() * math.prod(padded.shape[2 + axis :])


def _labels_at(padded: Tensor, offsets: Sequence[Tensor]) -> Tensor:
    return padded.flatten(1)[:, functools.reduce(torch.add, offsets)]


def _score(label: Tensor, corners: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The interpolated indicator of a label that may differ from voxel to voxel."""
    total = torch.zeros(label.shape, dtype=torch.float32, device=label.device)
    for corner, weight in zip(corners, weights, strict=True):
        total.addcmul_(weight, corner == label)
    return (_SCORE * total).half()
