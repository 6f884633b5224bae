"""The general factorisation: against the authors' results, and laws of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
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


@pytest.mark.parametrize("solver", SOLVERS)
def test_empty_matrices_stay_finite(solver: str) -> None:
    x = torch.zeros(2, 4, 9, requires_grad=True)
    u, v = decompose(x, Start(4, 9, 2, "constant"), NMFSettings(rank=2, solver=solver))
    y = u @ v.mT
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()


def test_a_stored_start_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    Start(4, 9, 2, "uniform")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"solver": "newton"}, "solver=newton is unknown; valid: one of"),
        ({"start": "ones"}, "start=ones is unknown; valid: one of"),
        ({"rank": 0}, "rank=0 is impossible"),
        ({"num_iters": 3, "num_grad_steps": 4}, "num_grad_steps=4 is impossible; valid: 1 to num_iters=3"),
    ],
)
def test_impossible_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NMFSettings(**values)
