"""Networks and blocks of the authors' implementation are reproduced: outputs and gradients."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from oracle_files import below, load, oracle_files, relative_error
from upstream_example import CONFIG, upstream_state

from factorizer_nnunet.network import Factorizer, from_upstream
from factorizer_nnunet.network.layout import channels_first, channels_last
from factorizer_nnunet.network.nmf import decompose
from factorizer_nnunet.network.upstream import load_upstream, own_name, upstream_arguments

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
    form = {"in_channels": 1, "out_channels": 1, "encoder_width": [config["channels"]], "strides": [1]}
    network = Factorizer(**upstream_arguments({**config, **form, "decoder_depth": []})).double()
    state = network.state_dict()
    for name, value in below(arrays, "state/").items():
        ours = own_name(f"encoder.blocks.0.block.blocks.0.{name}", network.config.num_stages)
        state[ours] = torch.as_tensor(value).reshape(state[ours].shape)
    network.load_state_dict(state)
    block = network.encoder.stages[0][0]
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
        ({"reshape": ["Wavelet", {}]}, "unknown reshape='Wavelet': expected one of"),
        ({"solver": "newton"}, "unknown solver='newton': expected one of"),
        (
            {"spatial_size": [16, 16, 10]},
            r"patch_size=\[4, 4, 4\] does not divide the \[16, 16, 10\] voxels of stage 0",
        ),
        (
            {"reshape": ["SWMatricize", {"head_dim": 8, "grid_size": 8, "shifts": [None, 1]}]},
            r"patch_size=\[1, 1, 0\] does not divide the \[8, 8, 4\] voxels of stage 1",
        ),
        (
            {"reshape": ["SWMatricize", {"head_dim": 3, "patch_size": 4}]},
            "it does not divide the 8 channels",
        ),
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
    with pytest.raises(ValueError, match="the weights contain nothing for"):
        load_upstream(network, {"stem.weight": torch.zeros(8, 2, 3, 3, 3)})


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_weights_keep_their_precision(dtype: torch.dtype) -> None:
    state = {name: value.to(dtype) for name, value in upstream_state(CONFIG).items()}
    network = from_upstream(CONFIG, state)
    assert {parameter.dtype for parameter in network.parameters()} == {dtype}
    assert torch.equal(network.decoder.seg_layers[0].bias, state["head.bias"])


@pytest.mark.parametrize(("asked", "outputs"), [(False, None), (0, None), (1, 1), (2, 2), (True, 2)])
def test_as_many_outputs_as_asked_for(asked: int, outputs: int | None) -> None:
    config = {**CONFIG, "encoder_width": [8, 8, 8], "encoder_depth": [1, 1, 1], "decoder_depth": [1, 1]}
    config |= {"strides": [1, 2, 2], "spatial_size": [16] * 3, "num_deep_supr": asked}
    y = from_upstream(config)(torch.randn(1, 2, 16, 16, 16))
    assert torch.is_tensor(y) if outputs is None else len(y) == outputs


def test_every_output_needs_its_weights() -> None:
    config = {**CONFIG, "encoder_width": [8, 8, 8], "encoder_depth": [1, 1, 1], "decoder_depth": [1, 1]}
    config |= {"strides": [1, 2, 2], "spatial_size": [16] * 3}
    state = upstream_state(config)
    heads = {f"heads.{index}.{kind}": state[f"head.{kind}"] for index in range(2) for kind in ("weight", "bias")}
    state = {name: value for name, value in state.items() if not name.startswith("head.")}
    assert len(from_upstream({**config, "num_deep_supr": 2}, {**state, **heads})(torch.randn(1, 2, 16, 16, 16))) == 2
    del heads["heads.1.bias"]
    with pytest.raises(ValueError, match="the weights contain nothing for 'decoder.seg_layers.1.bias'"):
        from_upstream({**config, "num_deep_supr": 2}, {**state, **heads})


@pytest.mark.parametrize("num_iters", [1, 2, 4, 5])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_mixers_are_the_authors_formulas(solver: str, rank: int, num_iters: int) -> None:
    """Their updates written out again, on matrices with the zeros that a ReLU leaves."""
    config = {**CONFIG, "encoder_width": [8], "encoder_depth": [1], "decoder_depth": [], "strides": [1]}
    config |= {"reshape": ["Matricize", {"head_dim": 8, "patch_size": [16, 16, 8]}]}
    config |= {"solver": solver, "rank": rank, "num_iters": num_iters}
    torch.manual_seed(rank)
    mixer = from_upstream(config).double().encoder.stages[0][0].mixer
    x = torch.randn(1, 16, 16, 8, 8, dtype=torch.float64)
    matrix = mixer.nonnegative(x).reshape(-1, 8).mT
    assert (matrix == 0).any()
    u, v = mixer.start.u0, mixer.start.v0
    for _ in range(num_iters):
        u = _authors_update(solver, matrix, u, v)
        v = _authors_update(solver, matrix.mT, v, u)
    expected = mixer.out_proj((v @ u.mT).reshape(x.shape))
    assert relative_error(mixer(x), expected) < 1e-12
    ((own_u, own_v),) = mixer.decompose(x)
    assert relative_error((own_v @ own_u.mT).reshape(-1, 8), v @ u.mT) < 1e-12


def _authors_update(solver: str, x: torch.Tensor, u: torch.Tensor, v: torch.Tensor, eps: float = 1e-16) -> torch.Tensor:
    a, b = x @ v, v.mT @ v
    if solver == "mu":
        return (u * a + eps) / (u @ b + eps)
    for r in range(u.shape[1]):
        others = torch.cat((u[:, :r], u[:, r + 1 :]), 1) @ torch.cat((b[:r, r], b[r + 1 :, r]))
        column = torch.relu((a[:, r] - others + eps) / (b[r, r] + eps))
        u = torch.cat((u[:, :r], column[:, None], u[:, r + 1 :]), 1)
    return u
