"""Every route of the mixer gives what plain iteration on its windows gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_files import load, oracle_files

from factorizer_nnunet.network.layout import from_windows, to_windows
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import STARTS, NMFSettings
from factorizer_nnunet.network.solvers import SOLVERS
from factorizer_nnunet.network.windows import axis_shifts, window_grid

SHIFTS = [(0.0,), (0.0, 0.5), (0.0, 0.25, 0.5, 0.75)]


def literally(mixer: NMFMixer, x: torch.Tensor) -> torch.Tensor:
    grid = mixer.grid(x.shape[1:-1])
    parts = [
        from_windows(v @ u.mT, grid, offset) for (u, v), offset in zip(mixer.decompose(x), grid.offsets, strict=True)
    ]
    return mixer.out_proj(sum(parts) / len(parts))


@settings(max_examples=60, deadline=None)
@given(
    size=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    window=st.sampled_from([4, 8, None]),
    shifts=st.sampled_from(SHIFTS),
    border=st.sampled_from(["cut", "cyclic"]),
    solver=st.sampled_from(sorted(SOLVERS)),
    start=st.sampled_from(STARTS),
    steps=st.sampled_from([(5, None), (4, 1), (3, 3), (1, 1)]),
    seed=st.integers(0, 99),
)
def test_routes_agree(
    size: list[int], window: int | None, shifts: tuple, border: str, solver: str, start: str, steps: tuple, seed: int
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
    torch.nn.init.uniform_(
        mixer.in_proj.weight, 0.1, 1
    )  # keeps X above 0, where the ReLUs of plain iteration are smooth
    x = torch.rand(2, *size, 4, dtype=torch.float64, requires_grad=True)
    fast, slow = mixer(x), literally(mixer, x)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-10)
    weight = torch.rand_like(fast)
    fast_grad, slow_grad = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (fast, slow))
    torch.testing.assert_close(fast_grad, slow_grad, rtol=1e-6, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(
    size=st.lists(st.integers(1, 13), min_size=2, max_size=3),
    window=st.sampled_from([1, 4, 8, None]),
    shifts=st.sampled_from(SHIFTS),
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


def test_permuting_heads_permutes_the_result() -> None:
    torch.manual_seed(0)
    mixer = NMFMixer(8, head_dim=2, window_size=(4, 4), shifts=(0.0, 0.5), border="cut", nmf=NMFSettings()).double()
    eye = torch.eye(8, dtype=torch.float64)
    order = torch.tensor([4, 5, 0, 1, 6, 7, 2, 3])
    mixer.in_proj.weight.data, mixer.out_proj.weight.data = eye, eye
    x = torch.rand(1, 8, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(mixer(x[..., order]) - mixer.out_proj.bias, (mixer(x) - mixer.out_proj.bias)[..., order])


def test_permuting_the_voxels_of_a_window_permutes_the_result() -> None:
    torch.manual_seed(0)
    mixer = NMFMixer(4, head_dim=2, window_size=(None, None), shifts=(0.0,), border="cut", nmf=NMFSettings()).double()
    x = torch.rand(1, 6, 5, 4, dtype=torch.float64)
    order = torch.randperm(30)
    moved = x.flatten(1, 2)[:, order].reshape(x.shape)
    torch.testing.assert_close(mixer(moved), mixer(x).flatten(1, 2)[:, order].reshape(x.shape))
