"""Factors in space equal those of the mixer, for all its implementations."""

from __future__ import annotations

import pytest
import torch

from factorizer_nnunet.explain.factors import factorise
from factorizer_nnunet.network.layout import from_windows
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import NMFSettings

SIZE = (9, 8, 5)


def mixer(shifts: tuple[float, ...] = (0.0, 0.5), border: str = "cut", **nmf: object) -> NMFMixer:
    torch.manual_seed(0)
    made = NMFMixer(8, head_dim=4, window_size=(4, 4, 4), shifts=shifts, border=border, nmf=NMFSettings(**nmf))
    return made.double().requires_grad_(False)


def given(seed: int = 1) -> torch.Tensor:
    return torch.randn(1, *SIZE, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("border", ["cut", "cyclic"])
@pytest.mark.parametrize("nmf", [{}, {"start": "nndsvd"}, {"rank": 2}, {"solver": "mu", "rank": 3}, {"solver": "semi"}])
def test_maps_are_v_for_unit_columns_of_u(border: str, nmf: dict) -> None:
    made, x = mixer(border=border, **nmf), given()
    grid = made.grid(SIZE)
    expected = 0
    for (u, v), offset in zip(made.decompose(x), grid.offsets, strict=True):
        expected = expected + from_windows(v * u.norm(dim=-2, keepdim=True), grid, offset)[0] / len(grid.offsets)
    torch.testing.assert_close(factorise(made, x).maps, expected.movedim(-1, 0))


@pytest.mark.parametrize("rank", [1, 2])
def test_loadings_times_maps_equal_the_reconstruction(rank: int) -> None:
    made, x = mixer(shifts=(0.25,), rank=rank), given()
    factors = factorise(made, x, with_loadings=True)
    products = (factors.loadings * factors.maps[:, None]).unflatten(0, (2, rank)).sum(1).flatten(0, 1)
    torch.testing.assert_close(products.movedim(0, -1)[None], made.reconstruct(made.nonnegative(x)))


def test_energies_add_up_to_that_of_the_reconstruction() -> None:
    made, x = mixer(shifts=(0.5,)), given()
    factors = factorise(made, x)
    reconstruction = made.reconstruct(made.nonnegative(x))
    torch.testing.assert_close(
        factors.energy, reconstruction.square().flatten(0, -2).sum(0).unflatten(0, (2, 4)).sum(-1)
    )
    torch.testing.assert_close(factors.energy, factors.maps.square().flatten(1).sum(1))
    assert (factors.energy < factors.head_energy).all()
    assert (factors.mean_loading.norm(dim=-1) <= factors.energy * (1 + 1e-9)).all()


def test_an_empty_volume_has_empty_maps() -> None:
    factors = factorise(mixer(), torch.zeros(1, *SIZE, 8, dtype=torch.float64), with_loadings=True)
    for values in (factors.maps, factors.loadings, factors.energy, factors.mean_loading):
        assert torch.equal(values, torch.zeros_like(values))
