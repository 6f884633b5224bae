"""The general factorisation: against the authors' results, and laws of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_files import load, oracle_files, relative_error

from factorizer_nnunet.network.nmf import STARTS, NMFSettings, Start, decompose
from factorizer_nnunet.network.solvers import SOLVERS


@pytest.mark.parametrize("path", oracle_files("nmf_*.npz"))
def test_the_authors_factors_and_gradients(path: Path) -> None:
    config, arrays = load(path)
    settings = NMFSettings(
        rank=config["rank"],
        solver=config["solver"],
        start="uniform",
        num_iters=config["num_iters"],
        num_grad_steps=config["num_grad_steps"],
        eps=1e-16,
    )
    start = Start(*config["size"], config["rank"], "uniform").double()
    start.load_state_dict({"u0": arrays["u0"], "v0": arrays["v0"]})
    x = arrays["x"].clone().requires_grad_()
    u, v = decompose(x, start, settings)
    (u @ v.mT).backward(arrays["grad_y"])
    assert relative_error(u, arrays["u"]) < 1e-10
    assert relative_error(v, arrays["v"]) < 1e-10
    assert relative_error(u @ v.mT, arrays["y"]) < 1e-10
    assert relative_error(x.grad, arrays["grad_x"]) < 1e-10


def matrices(seed: int = 0) -> torch.Tensor:
    return torch.rand(5, 6, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rank", [1, 3])
def test_iterations_lower_the_error_and_keep_the_factors_nonnegative(solver: str, start: str, rank: int) -> None:
    x = matrices()
    errors = []
    for num_iters in (1, 20):
        u, v = decompose(
            x,
            Start(6, 40, rank, start).double(),
            NMFSettings(rank=rank, solver=solver, start=start, num_iters=num_iters),
        )
        assert (v >= 0).all()
        assert solver == "semi" or (u >= 0).all()
        errors.append(float(torch.linalg.norm(x - u @ v.mT)))
    best = torch.linalg.svd(x)[1][:, rank:].square().sum().sqrt()
    assert errors[1] <= errors[0] + 1e-9
    assert float(best) - 1e-9 <= errors[1] <= 1.25 * float(best)


def reconstruct(x: torch.Tensor, nmf: NMFSettings) -> torch.Tensor:
    start = Start(*x.shape[-2:], nmf.rank, nmf.start).to(x.dtype)
    u, v = decompose(x, start, nmf)
    return u @ v.mT


@pytest.mark.parametrize("eps", [None, 1e-16])
@pytest.mark.parametrize("solver", SOLVERS)
def test_empty_matrices_stay_finite(solver: str, eps: float | None) -> None:
    x = torch.zeros(2, 4, 9, requires_grad=True)
    u, v = decompose(x, Start(4, 9, 2, "constant"), NMFSettings(rank=2, solver=solver, eps=eps))
    y = u @ v.mT
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_empty_matrix_is_its_own_factorisation(solver: str, start: str, rank: int) -> None:
    x = torch.zeros(2, 4, 9, requires_grad=True)
    y = reconstruct(x, NMFSettings(rank=rank, solver=solver, start=start))
    y.sum().backward()
    assert not y.any()
    assert not x.grad.any()


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_float32_gives_the_numbers_and_gradients_of_float64(solver: str, start: str, rank: int) -> None:
    # Matrices in which a column dies or is redundant: those are where rounding could decide what comes out.
    full = torch.rand(4, 8, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    half, voxel = full.clone(), torch.zeros_like(full)
    half[..., :48] = 0
    voxel[..., 17] = full[..., 17]
    for scale in (1e-6, 1e-3, 1.0, 1e4):
        exact = (scale * torch.cat((full, half, voxel))).requires_grad_()
        nearly = exact.detach().float().requires_grad_()
        results = [reconstruct(x, NMFSettings(rank=rank, solver=solver, start=start)) for x in (exact, nearly)]
        for y in results:
            y.backward(torch.ones_like(y))
        assert relative_error(results[1], results[0]) < 1e-2
        # An approximation of X changes about as much as X does. Where X is 0, ReLU stops the gradient in the network.
        for x in (exact, nearly):
            assert torch.isfinite(x.grad).all()
            assert torch.linalg.norm(x.grad[x > 0]) < 10 * full.numel() ** 0.5


@settings(max_examples=60, deadline=None)
@given(
    solver=st.sampled_from(sorted(SOLVERS)),
    rank_and_start=st.sampled_from([(1, start) for start in STARTS] + [(r, s) for r in (2, 3) for s in STARTS[::2]]),
    factor=st.floats(-6, 6).map(lambda exponent: 10**exponent),
    # Larger than every rank: where the factors can reach the matrix, rounding decides what a projection sets to zero.
    shape=st.tuples(st.integers(4, 8), st.integers(4, 60)),
    seed=st.integers(0, 99),
)
def test_scaling_the_matrix_scales_its_factorisation(
    solver: str, rank_and_start: tuple, factor: float, shape: tuple, seed: int
) -> None:
    # A stored start has a scale of its own, so with more than one column it is a different start for another scale.
    rank, start = rank_and_start
    nmf = NMFSettings(rank=rank, solver=solver, start=start)
    x = torch.rand(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(reconstruct(factor * x, nmf) / factor, reconstruct(x, nmf), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_equal_columns_break_no_solver(solver: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, column = torch.rand(500, 6, 40, generator=generator), torch.rand(500, 40, 1, generator=generator)
    for rank in (2, 3):
        for update in SOLVERS[solver]:
            u = update(x, torch.ones(500, 6, rank), column.expand(-1, -1, rank), 1e-14)
            assert torch.isfinite(u).all()


def test_a_stored_start_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    Start(4, 9, 2, "uniform")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"solver": "newton"}, "invalid solver=newton: expected one of"),
        ({"start": "ones"}, "invalid start=ones: expected one of"),
        ({"rank": 0}, "invalid rank=0: expected an integer of at least 1"),
        ({"num_iters": 3, "num_grad_steps": 4}, "invalid num_grad_steps=4: expected 1 to num_iters=3"),
    ],
)
def test_invalid_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NMFSettings(**values)
