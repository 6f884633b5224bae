"""Every route of the mixer gives what plain iteration on its windows gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle_files import load, oracle_files

from factorizer_nnunet.network.layout import from_windows, to_windows
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import STARTS, NMFSettings
from factorizer_nnunet.network.solvers import SOLVERS
from factorizer_nnunet.network.windows import axis_shifts, window_grid

sixty_examples = settings(max_examples=60, deadline=None)
SHIFTS = st.sampled_from([(0.0,), (0.0, 0.5), (0.0, 0.25, 0.5, 0.75)])
WINDOWS = {
    "size": st.lists(st.integers(1, 9), min_size=2, max_size=3),
    "window": st.sampled_from([4, 8, None]),
    "shifts": SHIFTS,
    "border": st.sampled_from(["cut", "cyclic"]),
}
FACTORISATION = {
    "solver": st.sampled_from(sorted(SOLVERS)),
    "start": st.sampled_from(STARTS),
    "seed": st.integers(0, 99),
}


def literally(mixer: NMFMixer, x: torch.Tensor) -> torch.Tensor:
    grid = mixer.grid(x.shape[1:-1])
    parts = [
        from_windows(v @ u.mT, grid, offset) for (u, v), offset in zip(mixer.decompose(x), grid.offsets, strict=True)
    ]
    return mixer.out_proj(sum(parts) / len(parts))


@sixty_examples
@given(**WINDOWS, **FACTORISATION, zeros=st.booleans(), steps=st.sampled_from([(5, None), (4, 1), (3, 3), (1, 1)]))
def test_routes_agree(
    size: list[int],
    window: int | None,
    shifts: tuple,
    border: str,
    solver: str,
    start: str,
    zeros: bool,
    steps: tuple,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    nmf = NMFSettings(solver=solver, start=start, num_iters=steps[0], num_grad_steps=steps[1])
    mixer = NMFMixer(
        4,
        head_dim=2,
        window_size=[window] * len(size),
        shifts=shifts,
        border=border,
        nmf=nmf,
        stage_size=size,
    ).double()
    if not zeros:
        torch.nn.init.uniform_(mixer.in_proj.weight, 0.1, 1)
    x = torch.rand(2, *size, 4, dtype=torch.float64, requires_grad=True)
    fast, slow = mixer(x), literally(mixer, x)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)
    weight = torch.rand_like(fast)
    fast_grad, slow_grad = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (fast, slow))
    torch.testing.assert_close(fast_grad, slow_grad, rtol=1e-8, atol=1e-10)


@sixty_examples
@given(
    size=st.lists(st.integers(1, 13), min_size=2, max_size=3),
    window=st.sampled_from([1, 4, 8, None]),
    shifts=SHIFTS,
    cyclic=st.booleans(),
)
def test_windows_come_back_as_they_went(size: list[int], window: int | None, shifts: tuple, cyclic: bool) -> None:
    grid = window_grid(size, [window] * len(size), axis_shifts(shifts, len(size)), cyclic)
    x = torch.rand(2, *size, 6)
    for offset in grid.offsets:
        assert torch.equal(from_windows(to_windows(x, grid, offset, 3), grid, offset), x)


@pytest.mark.parametrize("path", oracle_files("matricize_*.npz"))
def test_the_authors_matrices(path: Path) -> None:
    config, arrays = load(path)
    x = arrays["x"].movedim(1, -1).contiguous()
    size = x.shape[1:-1]
    window = [config.get("patch_size")] * len(size)
    head_dim = config.get("head_dim") or x.shape[-1] // config["num_heads"]
    shifts = config.get("shifts", [None, window[0] // 2] if config["cls"] == "SWMatricize" else [None])
    fractions = [(-(shift or 0) % (window[0] or 1)) / (window[0] or 1) for shift in shifts]
    grid = window_grid(size, window, axis_shifts(fractions, len(size)), cyclic=True)
    ours = [to_windows(x, grid, offset, head_dim).mT.flatten(0, -3) for offset in grid.offsets]
    # The authors list heads before windows and cyclic windows from another one on: the order does not matter.
    theirs = [chunk.flatten(0, -3) for chunk in arrays["y"].chunk(len(grid.offsets))]
    for matrices, expected in zip(ours, theirs, strict=True):
        assert torch.equal(matrices[matrices[:, 0, 0].argsort()], expected[expected[:, 0, 0].argsort()])


@sixty_examples
@given(**WINDOWS, **FACTORISATION, rank=st.sampled_from([1, 2]))
def test_heads_are_interchangeable(
    size: list[int], window: int | None, shifts: tuple, border: str, rank: int, solver: str, start: str, seed: int
) -> None:
    """With the rows of in_proj and the columns of out_proj in another order of heads, the mixer is the same."""
    torch.manual_seed(seed)
    mixer = NMFMixer(
        12,
        head_dim=3,
        window_size=[window] * len(size),
        shifts=shifts,
        border=border,
        nmf=NMFSettings(rank=rank, solver=solver, start=start),
        stage_size=size,
    ).double()
    x = torch.randn(2, *size, 12, dtype=torch.float64)
    expected = mixer(x)
    order = torch.arange(12).reshape(4, 3)[torch.randperm(4)].flatten()
    mixer.in_proj.weight.data = mixer.in_proj.weight.data[order]
    mixer.out_proj.weight.data = mixer.out_proj.weight.data[:, order]
    torch.testing.assert_close(mixer(x), expected, rtol=1e-8, atol=1e-10)


@sixty_examples
@given(
    size=st.lists(st.integers(2, 7), min_size=2, max_size=3),
    rank=st.sampled_from([1, 2]),
    steps=st.sampled_from([(5, None), (4, 1)]),
    **FACTORISATION,
)
def test_permuting_the_voxels_of_a_window_permutes_the_result(
    size: list[int], rank: int, solver: str, start: str, steps: tuple, seed: int
) -> None:
    # A stored V₀ has a value per voxel, and so has the constant one of several columns: those starts know places.
    assume(start == "nndsvd" or (start == "constant" and rank == 1))
    torch.manual_seed(seed)
    nmf = NMFSettings(rank=rank, solver=solver, start=start, num_iters=steps[0], num_grad_steps=steps[1])
    whole = [None] * len(size)
    mixer = NMFMixer(6, head_dim=3, window_size=whole, shifts=(0.0,), border="cut", nmf=nmf, stage_size=size).double()
    x = torch.randn(2, *size, 6, dtype=torch.float64)
    order = torch.randperm(x[0, ..., 0].numel())

    def permuted(volume: torch.Tensor) -> torch.Tensor:
        return volume.flatten(1, -2)[:, order].reshape(volume.shape)

    torch.testing.assert_close(mixer(permuted(x)), permuted(mixer(x)), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("steps", [(5, None), (4, 2), (1, 1)])
@pytest.mark.parametrize("start", ["constant", "uniform"])  # NNDSVD is a constant to autograd, but follows X
@pytest.mark.parametrize(
    ("window", "shifts"), [((None, None), (0.0,)), ((2, 4), (0.0,)), ((4, 2), (0.0, 0.5)), ((4, 4), (0.0, 0.25, 0.5))]
)
def test_gradients_are_those_of_differences(window: tuple, shifts: tuple, start: str, steps: tuple) -> None:
    """Global, Local and Swin by rank 1; of what is iterated without gradients, differences know nothing."""
    torch.manual_seed(0)
    nmf = NMFSettings(start=start, num_iters=steps[0], num_grad_steps=steps[1])
    mixer = NMFMixer(
        4, head_dim=2, window_size=window, shifts=shifts, border="cut", nmf=nmf, stage_size=(5, 6)
    ).double()
    torch.nn.init.uniform_(mixer.in_proj.weight, 0.1, 1)
    x = torch.rand(1, 5, 6, 4, dtype=torch.float64, requires_grad=True)
    if nmf.num_constant_steps == 0:
        assert torch.autograd.gradcheck(mixer, x, eps=1e-6, atol=1e-8)
    else:
        ours, plain = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (mixer, lambda y: literally(mixer, y)))
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)
