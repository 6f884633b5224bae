"""Networks and blocks of the authors' implementation are reproduced: outputs and gradients."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from oracle_files import below, load, oracle_files, relative_error
from upstream_example import CONFIG

from factorizer_nnunet.network import from_upstream
from factorizer_nnunet.network.layers import channels_first, channels_last
from factorizer_nnunet.network.nmf import decompose
from factorizer_nnunet.network.upstream import block_from_upstream, load_upstream, own_name, upstream_arguments

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("path", oracle_files("net_*.npz"))
def test_networks(path: Path, dtype: torch.dtype) -> None:
    config, arrays = load(path)
    network = from_upstream(config).to(dtype)
    load_upstream(network, {name: value.to(dtype) for name, value in below(arrays, "state/").items()})
    x = arrays["x"].to(dtype).requires_grad_()
    outputs = network(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    torch.autograd.backward(outputs, [arrays[f"grad_y{i}"].to(dtype) for i in range(len(outputs))])
    parameters = dict(network.named_parameters())
    for i, output in enumerate(outputs):
        assert relative_error(output, arrays[f"y{i}"]) < TOLERANCE[dtype]
    assert relative_error(x.grad, arrays["grad_x"]) < TOLERANCE[dtype]
    gradients = below(arrays, "grad/")
    assert gradients
    for name, expected in gradients.items():
        ours = parameters[own_name(name, network.config.num_stages)].grad
        assert relative_error(ours.reshape(expected.shape), expected) < TOLERANCE[dtype], name


@pytest.mark.parametrize("path", oracle_files("block_*.npz"))
def test_blocks(path: Path) -> None:
    config, arrays = load(path)
    block = block_from_upstream(config, below(arrays, "state/"))
    x = arrays["x"].clone().requires_grad_()
    y = channels_first(block(channels_last(x)))
    y.backward(arrays["grad_y0"])
    assert relative_error(y, arrays["y0"]) < 1e-10
    assert relative_error(x.grad, arrays["grad_x"]) < 1e-10


def test_shifts_of_anisotropic_windows_are_in_voxels() -> None:
    """Against the authors' way written out: roll by the shift, cut into windows, factorise, put back, roll back."""
    torch.manual_seed(0)
    size, window, shifts = (4, 8, 8), (2, 4, 8), [None, (1, 2, 3), 1]
    options = {"head_dim": 4, "patch_size": window, "shifts": shifts}
    config = {**CONFIG, "spatial_size": size, "reshape": ["SWMatricize", options], "rank": 2}
    network = from_upstream({**config, "encoder_width": [8], "encoder_depth": [1], "decoder_depth": [], "strides": [1]})
    mixer = network.double().encoder.stages[0][0].mixer
    x = torch.rand(1, *size, 8, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for shift in shifts:
        steps = (0, 0, 0) if shift is None else (shift,) * 3 if isinstance(shift, int) else shift
        rolled = torch.roll(mixer.nonnegative(x), steps, (1, 2, 3))
        result = torch.zeros_like(rolled)
        for a, b, c, head in itertools.product(range(0, 4, 2), range(0, 8, 4), range(0, 8, 8), range(0, 8, 4)):
            where = (0, slice(a, a + 2), slice(b, b + 4), slice(c, c + 8), slice(head, head + 4))
            u, v = decompose(rolled[where].reshape(-1, 4).mT, mixer.start, mixer.nmf)
            result[where] = (v @ u.mT).reshape(2, 4, 8, 4)
        expected += torch.roll(result, [-s for s in steps], (1, 2, 3)) / len(shifts)
    # Rank 2 can be ill-conditioned: rounding grows to 1e-10, here and there.
    torch.testing.assert_close(mixer(x), mixer.out_proj(expected), rtol=1e-6, atol=1e-8)


def test_windows_by_their_number() -> None:
    arguments = upstream_arguments({**CONFIG, "reshape": ["Matricize", {"num_heads": 2, "grid_size": [2, 1, 4]}]})
    assert arguments["window_sizes"] == [[8, 16, 2], [4, 8, 1]]
    assert arguments["shifts"] == [0.0]


def test_fresh_weights_need_no_state_and_most_entries_have_defaults() -> None:
    config = {key: CONFIG[key] for key in ("in_channels", "out_channels", "spatial_size", "encoder_width", "reshape")}
    assert from_upstream(config)(torch.randn(1, 2, 16, 16, 8)).shape == (1, 3, 16, 16, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reshape": ["Wavelet", {}]}, "reshape='Wavelet' is unknown; valid: one of"),
        ({"solver": "newton"}, "solver='newton' is unknown; valid: one of"),
        (
            {"spatial_size": [16, 16, 10]},
            r"patch_size=\[4, 4, 4\] does not divide the \[16, 16, 10\] voxels of stage 0",
        ),
        (
            {"reshape": ["SWMatricize", {"head_dim": 8, "grid_size": 8, "shifts": [None, 1]}]},
            r"patch_size=\[1, 1, 0\] does not divide the \[8, 8, 4\] voxels of stage 1",
        ),
        ({"reshape": ["SWMatricize", {"head_dim": 3, "patch_size": 4}]}, "head_dim=3 does not divide the 8 channels"),
    ],
)
def test_configurations_without_counterpart_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_upstream({**CONFIG, **change})


def test_weights_that_do_not_fit_are_refused() -> None:
    network = from_upstream(CONFIG)
    with pytest.raises(ValueError, match=r"parameter 'other\.weight' has no counterpart"):
        load_upstream(network, {"other.weight": torch.zeros(1)})
    with pytest.raises(
        ValueError, match=r"'stem\.weight' has shape \[8, 1, 3, 3, 3\]; the configuration gives \[8, 2, 3, 3, 3\]"
    ):
        load_upstream(network, {"stem.weight": torch.zeros(8, 1, 3, 3, 3)})
    with pytest.raises(ValueError, match="the weights hold nothing for"):
        load_upstream(network, {"stem.weight": torch.zeros(8, 2, 3, 3, 3)})
