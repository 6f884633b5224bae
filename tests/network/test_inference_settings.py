"""A trained network computes with fewer iterations and shifts as one that was built so, on the same windows."""

from __future__ import annotations

import pytest
import torch

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.network.layout import from_windows
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import NMFSettings

PATCH = [20, 12, 20]  # 20 voxels make three windows of 8 that are not whole: one shift must not move their borders
FORMS = [
    {},
    {"solver": "mu"},
    {"num_grad_steps": 3},
    {"rank": 2, "start": "nndsvd"},
    {"start": "uniform", "patch_size": PATCH, "border": "cyclic", "window_sizes": [[8, 8, 8], [8, 4, 8]]},
    {"rank": 2, "start": "uniform", "patch_size": PATCH, "window_counts": [[3, 2, 3], [2, 1, 2]]},
]


def build(**settings: object) -> Factorizer:
    torch.manual_seed(0)
    shape = {"features_per_stage": [8, 16], "strides": [[1, 1, 1], [2, 2, 2]]}
    return Factorizer(1, 2, **shape, shifts=[0, 0.25, 0.5, 0.75], **settings).double().eval()


@pytest.mark.parametrize("settings", FORMS)
def test_it_is_the_network_that_is_built_with_these_settings(settings: dict) -> None:
    x = torch.randn(1, 1, *PATCH, dtype=torch.float64)
    network = build(**settings)
    as_built = network(x)
    network.use(num_iters=1, num_shifts=2)
    steps = {"num_grad_steps": 1} if "num_grad_steps" in settings else {}
    other = build(**{**settings, "num_iters": 1, "num_shifts": 2, **steps})
    other.load_state_dict(network.state_dict())
    assert network.config == other.config
    torch.testing.assert_close(network(x), other(x))
    assert not torch.allclose(network(x), as_built, rtol=1e-6), "nothing was changed"
    network.use(num_iters=5, num_shifts=4)
    torch.testing.assert_close(network(x), as_built)


@pytest.mark.parametrize("border", ["cut", "cyclic"])
def test_two_of_four_shifts_are_the_first_and_third_on_the_windows_of_all(border: str) -> None:
    options = {"head_dim": 4, "window_size": (8, 8), "shifts": [0, 0.25, 0.5, 0.75], "border": border}
    mixer = NMFMixer(8, nmf=NMFSettings(), **options).double()
    x = torch.randn(1, 10, 21, 8, dtype=torch.float64)
    grid, factors = mixer.grid(x.shape[1:-1]), mixer.decompose(x)
    low_rank = [from_windows(v @ u.mT, grid, offset) for (u, v), offset in zip(factors, grid.offsets, strict=True)]
    mixer.num_shifts = 2
    torch.testing.assert_close(mixer(x), mixer.out_proj((low_rank[0] + low_rank[2]) / 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_iters": 0}, "invalid num_iters=0: expected an integer of at least 1"),
        ({"num_iters": 1.5}, "invalid num_iters=1.5: expected an integer"),
        ({"num_shifts": 5}, "invalid num_shifts=5: expected 1 to 4, the number of shifts"),
        ({"num_shifts": 0}, "invalid num_shifts=0: expected an integer of at least 1"),
        ({"num_shifts": True}, "invalid num_shifts=True: expected an integer"),
    ],
)
def test_settings_that_the_network_does_not_have_change_nothing(settings: dict, message: str) -> None:
    network = build(num_grad_steps=2)
    before = network.config
    with pytest.raises(ValueError, match=message):
        network.use(**settings)
    assert network.config is before
