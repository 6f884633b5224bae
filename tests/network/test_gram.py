"""The Gram path equals the literal algorithm, is differentiable, and survives hard numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from literal import mix_literally

from factorizer_nnunet.network.layout import from_windows, to_windows
from factorizer_nnunet.network.ops.mixer.gram import mix_families, mix_rank_one
from factorizer_nnunet.network.windows import WindowGrid, axis_shifts, families, window_grid


def nonnegative(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.relu(torch.randn(shape, dtype=torch.float64, generator=generator))


def literally(x: torch.Tensor, grid: WindowGrid, head_dim: int, num_iters: int) -> torch.Tensor:
    axes = [(axis.block, axis.blocks_per_window) for axis in grid.axes]
    return mix_literally(x, head_dim, num_iters, axes, list(grid.offsets))


@settings(max_examples=40, deadline=None)
@given(
    size=st.lists(st.integers(1, 13), min_size=2, max_size=3),
    window=st.sampled_from([2, 4, 8]),
    shifts=st.sampled_from([(0.0,), (0.0, 0.5), (0.5,)]),
    head_dim=st.sampled_from([2, 4]),
    num_iters=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_equals_the_literal_algorithm(
    size: list[int], window: int, shifts: tuple, head_dim: int, num_iters: int, seed: int
) -> None:
    x = nonnegative((2, *size, 4), seed)
    grid = window_grid(size, (window,) * len(size), axis_shifts(shifts, len(size)))
    torch.testing.assert_close(
        mix_rank_one(x, grid, head_dim, num_iters), literally(x, grid, head_dim, num_iters), rtol=1e-10, atol=1e-12
    )


def test_four_shifts_equal_the_literal_algorithm() -> None:
    x = nonnegative((1, 12, 9, 16, 8), 3)
    grid = window_grid((12, 9, 16), (8, 8, 8), axis_shifts((0, 0.25, 0.5, 0.75), 3))
    assert len(grid.offsets) == 4
    torch.testing.assert_close(mix_rank_one(x, grid, 8, 5), literally(x, grid, 8, 5), rtol=1e-10, atol=1e-12)


def test_gradient() -> None:
    x = (nonnegative((1, 6, 5, 4), 1) + 0.05).requires_grad_()
    grid = window_grid((6, 5), (4, 4), axis_shifts((0.0, 0.5), 2))
    assert torch.autograd.gradcheck(lambda t: mix_rank_one(t, grid, 2, 4), x)


def test_gradient_equals_that_of_the_literal_algorithm() -> None:
    # Where a voxel is 0 in all channels, the literal ReLU passes no gradient and the Gram path does; in the network
    # the ReLU before the NMF stops it there in either case.
    x = (nonnegative((1, 8, 8, 4, 4), 2) + 0.01).requires_grad_()
    weight = nonnegative(tuple(x.shape), 5)
    grid = window_grid((8, 8, 4), (4, 4, 4), axis_shifts((0.0, 0.5), 3))
    fast = torch.autograd.grad((mix_rank_one(x, grid, 4, 5) * weight).sum(), x)[0]
    slow = torch.autograd.grad((literally(x, grid, 4, 5) * weight).sum(), x)[0]
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 11.0, 1e3])
def test_half_precision_stays_near_float64(dtype: torch.dtype, scale: float) -> None:
    exact = nonnegative((1, 8, 8, 8, 8), 7) * scale
    grid = window_grid((8, 8, 8), (8, 8, 8), axis_shifts((0.0,), 3))
    half = exact.to(dtype)
    result, expected = mix_rank_one(half, grid, 8, 5), mix_rank_one(half.double(), grid, 8, 5)
    assert torch.linalg.norm(result.double() - expected) <= 1e-2 * torch.linalg.norm(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_empty_windows_give_zero_and_a_finite_zero_gradient(dtype: torch.dtype) -> None:
    x = torch.zeros(1, 8, 8, 8, dtype=dtype)
    x[0, 0, 0] = 1  # one voxel in one window, the other windows are background
    x.requires_grad_()
    y = mix_rank_one(x, window_grid((8, 8), (4, 4), axis_shifts((0.0,), 2)), 8, 5)
    y.float().sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    assert (y[0, 4:] == 0).all()
    assert (x.grad[0, 4:] == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    size=st.lists(st.integers(1, 19), min_size=2, max_size=3),
    window=st.sampled_from([3, 4, 8]),
    shifts=st.sampled_from([(0.0, 0.25, 0.5, 0.75), (0.25, 0.75), (0.0, 0.5, 0.625), (0.0, 1 / 3)]),
    cyclic=st.booleans(),
    least_voxels=st.sampled_from([4, 16, 64, 1000]),
    seed=st.integers(0, 99),
)
def test_families_of_shifts_change_nothing(
    size: list[int], window: int, shifts: tuple, cyclic: bool, least_voxels: int, seed: int
) -> None:
    x = nonnegative((2, *size, 4), seed)
    grid = window_grid(size, (window,) * len(size), axis_shifts(shifts, len(size)), cyclic)
    split = families(grid, least_voxels)
    torch.testing.assert_close(mix_families(x, split, 2, 5), mix_rank_one(x, grid, 2, 5), rtol=1e-10, atol=1e-12)


LAYOUTS = {
    "size": st.lists(st.integers(1, 13), min_size=2, max_size=3),
    "window": st.sampled_from([1, 2, 4, 8]),
    "shifts": st.sampled_from([(0.0,), (0.0, 0.5), (0.0, 0.25, 0.5, 0.75)]),
    "cyclic": st.booleans(),
    "seed": st.integers(0, 99),
}


@settings(max_examples=40, deadline=None)
@given(**LAYOUTS, factor=st.floats(-12, 12).map(lambda exponent: 10**exponent))
def test_scaling_the_input_scales_the_output(
    size: list[int], window: int, shifts: tuple, cyclic: bool, seed: int, factor: float
) -> None:
    x = nonnegative((2, *size, 8), seed)
    grid = window_grid(size, (window,) * len(size), axis_shifts(shifts, len(size)), cyclic)
    scaled = mix_rank_one(factor * x, grid, 4, 5) / factor
    torch.testing.assert_close(scaled, mix_rank_one(x, grid, 4, 5), rtol=1e-10, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(**LAYOUTS, head_dim=st.sampled_from([1, 2, 4]))
def test_permuting_heads_permutes_the_output(
    size: list[int], window: int, shifts: tuple, cyclic: bool, seed: int, head_dim: int
) -> None:
    x = nonnegative((2, *size, 12), seed)
    grid = window_grid(size, (window,) * len(size), axis_shifts(shifts, len(size)), cyclic)
    order = torch.randperm(12 // head_dim, generator=torch.Generator().manual_seed(seed))
    moved = mix_rank_one(_heads_in_order(x, order, head_dim), grid, head_dim, 5)
    expected = _heads_in_order(mix_rank_one(x, grid, head_dim, 5), order, head_dim)
    torch.testing.assert_close(moved, expected, rtol=1e-10, atol=1e-12)


def _heads_in_order(x: torch.Tensor, order: torch.Tensor, head_dim: int) -> torch.Tensor:
    return x.unflatten(-1, (-1, head_dim))[..., order, :].flatten(-2)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    window=st.sampled_from([1, 2, 3, 5]),
    seed=st.integers(0, 99),
)
def test_permuting_the_voxels_of_every_window_permutes_the_output(counts: list[int], window: int, seed: int) -> None:
    size = [window * count for count in counts]
    x = nonnegative((2, *size, 8), seed)
    grid = window_grid(size, (window,) * len(size), axis_shifts((0.0,), len(size)))
    generator = torch.Generator().manual_seed(seed)

    windows = to_windows(x, grid, grid.offsets[0], 8)
    orders = torch.rand(windows.shape[:-1], generator=generator).argsort(-1)[..., None].expand_as(windows)

    def permuted(volume: torch.Tensor) -> torch.Tensor:
        parts = to_windows(volume, grid, grid.offsets[0], 8)
        return from_windows(parts.gather(-2, orders), grid, grid.offsets[0])

    moved, expected = mix_rank_one(permuted(x), grid, 4, 5), permuted(mix_rank_one(x, grid, 4, 5))
    torch.testing.assert_close(moved, expected, rtol=1e-10, atol=1e-12)
