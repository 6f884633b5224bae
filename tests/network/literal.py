"""The Factorizer block's NMF written out literally, window by window: the oracle of the fast path."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def hals_rank_one(x: Tensor, num_iters: int) -> Tensor:
    """x: (d, N) nonnegative; returns U Vᵀ after ``num_iters`` alternating HALS updates from V = 1."""
    v = torch.ones(x.shape[1], 1, dtype=x.dtype)
    u = torch.zeros(x.shape[0], 1, dtype=x.dtype)
    for _ in range(num_iters):
        u = torch.relu(x @ v) / (v.mT @ v).clamp_min(1e-300)
        v = torch.relu(x.mT @ u) / (u.mT @ u).clamp_min(1e-300)
    return u @ v.mT


def window_slices(size: int, block: int, blocks_per_window: int, offset: int) -> list[slice]:
    """Windows along one axis, borders ``offset`` blocks from the start, cut off at both ends."""
    window = block * blocks_per_window
    first = offset * block - window if offset else 0
    return [slice(max(0, start), min(size, start + window)) for start in range(first, size, window)]


def mix_literally(
    x: Tensor, head_dim: int, num_iters: int, axes: list[tuple[int, int]], offsets: list[tuple]
) -> Tensor:
    """x: (B, *spatial, C); ``axes``: (block, blocks per window) per axis; ``offsets``: blocks per axis and shift."""
    result = torch.zeros_like(x)
    for offset in offsets:
        per_axis = [
            window_slices(size, block, count, start)
            for size, (block, count), start in zip(x.shape[1:-1], axes, offset, strict=True)
        ]
        for case, head, *window in itertools.product(range(x.shape[0]), range(x.shape[-1] // head_dim), *per_axis):
            where = (case, *window, slice(head * head_dim, (head + 1) * head_dim))
            part = x[where]
            matrix = part.reshape(-1, head_dim).mT
            result[where] += hals_rank_one(matrix, num_iters).mT.reshape(part.shape)
    return result / len(offsets)
