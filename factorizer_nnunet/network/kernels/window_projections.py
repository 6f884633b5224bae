"""From sums over blocks to the projection of every window of every shift, and back; see ``gram``.

A window's Gram matrix and row sum are those of its blocks added up. The matrices are so small that in separate calls
the calls cost more than the arithmetic, so one kernel adds, iterates u ← r G u (r keeps the largest entry at 1) and
gives P = u uᵀ / (uᵀ u). The backward pass forms the iterates again, for each from the start, which is as cheap: with
r held constant, and g the gradient of u,

    dL/dG += r g uᵀ (u before the step),   g ← r Gᵀ g.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from triton import language as tl

from factorizer_nnunet.network.kernels.blocks import Geometry, windows_of_blocks

_MATRICES = 8  # of a program
_TINY = 1e-37  # just above the least normal float32: what Triton takes for one


@dataclass(frozen=True)
class Membership:
    """Which blocks make up which windows, all shifts one after the other; integers on a device."""

    blocks: Tensor  # (windows, blocks of a whole window), -1 where a window is cut off
    windows: Tensor  # (shifts, blocks)

    @property
    def shifts(self) -> int:
        """How many windows hold a block."""
        return self.windows.shape[0]


@functools.lru_cache(maxsize=64)
def membership(where: Geometry, device: torch.device) -> Membership:
    """Of the windows of a family."""
    first, per_shift, members = 0, [], []
    for shift in range(0, len(where.offsets), 3):
        offset = where.offsets[shift : shift + 3]
        along = [
            windows_of_blocks(*axis) for axis in zip(where.count, where.per_window, where.cyclic, offset, strict=True)
        ]
        counts = [max(windows) + 1 for windows in along]
        own = [first + _index(window, counts) for window in itertools.product(*along)]
        held: list[list[int]] = [[] for _ in range(math.prod(counts))]
        for block, window in enumerate(own):
            held[window - first].append(block)
        per_shift.append(own)
        members += held
        first += len(held)
    most = max(map(len, members))
    padded = [blocks + [-1] * (most - len(blocks)) for blocks in members]
    return Membership(*(torch.tensor(table, dtype=torch.int32, device=device) for table in (padded, per_shift)))


def _index(place: Sequence[int], counts: Sequence[int]) -> int:
    return functools.reduce(lambda index, axis: index * axis[1] + axis[0], zip(place, counts, strict=True), 0)


@triton.jit
def _step(gram, u, tiny: tl.constexpr):
    """One iterate, and by what it was divided; gram: (n, d, d), u: (n, d)."""
    product = tl.sum(gram * u[:, None, :], 2)
    most = tl.maximum(tl.max(product, 1), tiny)
    return product / most[:, None], most


@triton.jit
def _scaled(gram, first, tiny: tl.constexpr, SIZE: tl.constexpr):
    """Gram matrices divided by their trace, the trace, the first iterate, and by what it was divided."""
    i = tl.arange(0, SIZE)
    trace = tl.sum(tl.sum(tl.where(i[None, :, None] == i[None, None, :], gram, 0.0), 2), 1)
    trace = tl.maximum(trace, tiny)
    most = tl.maximum(tl.max(first, 1), tiny)
    return gram / trace[:, None, None], trace, first / most[:, None], most


@triton.jit
def _project(
    block_sums,
    table,
    window_sums,
    projections,
    windows,
    members,
    blocks,
    heads,
    size,
    num_iters: tl.constexpr,
    tiny: tl.constexpr,
    MATRICES: tl.constexpr,
    SIZE: tl.constexpr,
):
    """block_sums: (cases, blocks, heads, d, d + 1), window_sums: likewise for windows, projections: (…, d, d)."""
    case = tl.program_id(1).to(tl.int64)
    matrices = tl.program_id(0) * MATRICES + tl.arange(0, MATRICES)
    window, head = matrices // heads, matrices % heads
    i = tl.arange(0, SIZE)
    exists = matrices < windows * heads
    square = exists[:, None, None] & (i < size)[None, :, None] & (i < size)[None, None, :]
    line = exists[:, None] & (i < size)[None, :]
    entries = size * (size + 1)
    within = i[None, :, None] * (size + 1) + i[None, None, :]
    last = i[None, :] * (size + 1) + size
    block_sums += case * blocks * heads * entries
    gram = tl.zeros([MATRICES, SIZE, SIZE], tl.float32)
    first = tl.zeros([MATRICES, SIZE], tl.float32)
    for member in range(members):
        block = tl.load(table + window * members + member, exists, -1)
        at = (block * heads + head) * entries
        gram += tl.load(block_sums + at[:, None, None] + within, square & (block >= 0)[:, None, None], 0.0)
        first += tl.load(block_sums + at[:, None] + last, line & (block >= 0)[:, None], 0.0)
    window_sums += case * windows * heads * entries
    tl.store(window_sums + matrices[:, None, None] * entries + within, gram, square)
    tl.store(window_sums + matrices[:, None] * entries + last, first, line)
    gram, trace, u, divisor = _scaled(gram, first, tiny, SIZE)
    for _iteration in range(num_iters - 1):
        u, divisor = _step(gram, u, tiny)
    norm = tl.maximum(tl.sum(u * u, 1), tiny)
    result = u[:, :, None] * u[:, None, :] / norm[:, None, None]
    projections += case * windows * heads * size * size
    at = matrices[:, None, None] * (size * size) + i[None, :, None] * size + i[None, None, :]
    tl.store(projections + at, result, square)


@triton.jit
def _gradient(
    grad,
    table,
    window_sums,
    grad_sums,
    share,
    windows,
    members,
    blocks,
    heads,
    size,
    num_iters: tl.constexpr,
    tiny: tl.constexpr,
    MATRICES: tl.constexpr,
    SIZE: tl.constexpr,
):
    """grad: (cases, blocks, heads, d, d), of the average over shifts; grad_sums: of ``window_sums``."""
    case = tl.program_id(1).to(tl.int64)
    matrices = tl.program_id(0) * MATRICES + tl.arange(0, MATRICES)
    window, head = matrices // heads, matrices % heads
    i = tl.arange(0, SIZE)
    exists = matrices < windows * heads
    square = exists[:, None, None] & (i < size)[None, :, None] & (i < size)[None, None, :]
    line = exists[:, None] & (i < size)[None, :]
    entries = size * (size + 1)
    sums_at = matrices[:, None, None] * entries + i[None, :, None] * (size + 1) + i[None, None, :]
    last_at = matrices[:, None] * entries + i[None, :] * (size + 1) + size
    window_sums += case * windows * heads * entries
    gram = tl.load(window_sums + sums_at, square, 0.0)
    first = tl.load(window_sums + last_at, line, 0.0)
    gram, trace, start, most = _scaled(gram, first, tiny, SIZE)
    u, divisor = start, most
    for _iteration in range(num_iters - 1):
        u, divisor = _step(gram, u, tiny)
    norm = tl.maximum(tl.sum(u * u, 1), tiny)
    grad += case * blocks * heads * size * size
    both_ways = tl.zeros([MATRICES, SIZE, SIZE], tl.float32)
    for member in range(members):
        block = tl.load(table + window * members + member, exists, -1)
        here = square & (block >= 0)[:, None, None]
        at = ((block * heads + head) * size * size)[:, None, None]
        both_ways += tl.load(grad + at + i[None, :, None] * size + i[None, None, :], here, 0.0)
        both_ways += tl.load(grad + at + i[None, None, :] * size + i[None, :, None], here, 0.0)
    slope = share * tl.sum(both_ways * u[:, None, :], 2)
    slope = (slope - u * (tl.sum(slope * u, 1) / norm)[:, None]) / norm[:, None]
    of_gram = tl.zeros([MATRICES, SIZE, SIZE], tl.float32)
    for back in range(num_iters - 1):
        before, divisor = start, most
        for _iteration in range(num_iters - 2 - back):
            before, divisor = _step(gram, before, tiny)
        after, divisor = _step(gram, before, tiny)
        slope = slope / divisor[:, None]
        of_gram += slope[:, :, None] * before[:, None, :]
        slope = tl.sum(gram * slope[:, :, None], 1)
    grad_sums += case * windows * heads * entries
    tl.store(grad_sums + sums_at, of_gram / trace[:, None, None], square)
    tl.store(grad_sums + last_at, slope / most[:, None], line)


def project_windows(block_sums: Tensor, held: Membership, num_iters: int) -> tuple[Tensor, Tensor]:
    """Sums (B, windows, heads, d, d + 1) and projections (B, windows, heads, d, d) of windows.

    block_sums: (B, blocks, heads, d, d + 1), Gram matrix and row sum of each block, float32, contiguous.
    """
    cases, _, heads, size, _ = block_sums.shape
    windows = held.blocks.shape[0]
    window_sums = block_sums.new_empty(cases, windows, heads, size, size + 1)
    projections = block_sums.new_empty(cases, windows, heads, size, size)
    _project[(triton.cdiv(windows * heads, _MATRICES), cases)](
        block_sums, held.blocks, window_sums, projections, *_sizes(block_sums, held, num_iters)
    )
    return window_sums, projections


def project_windows_backward(grad: Tensor, window_sums: Tensor, held: Membership, num_iters: int) -> Tensor:
    """Gradient of ``window_sums``; grad: (B, blocks, heads, d, d), of the average projection of each block."""
    cases, windows, heads, *_ = window_sums.shape
    result = torch.empty_like(window_sums)
    _gradient[(triton.cdiv(windows * heads, _MATRICES), cases)](
        grad, held.blocks, window_sums, result, 1 / held.shifts, *_sizes(grad, held, num_iters)
    )
    return result


def _sizes(of_blocks: Tensor, held: Membership, num_iters: int) -> tuple[int | float, ...]:
    _, blocks, heads, size, _ = of_blocks.shape
    windows, members = held.blocks.shape
    return windows, members, blocks, heads, size, num_iters, _TINY, _MATRICES, triton.next_power_of_2(size)
