"""Networks and blocks of the authors' implementation are reproduced: outputs and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from oracle_files import below, load, oracle_files, relative_error

from factorizer_nnunet.network import from_upstream
from factorizer_nnunet.network.layers import channels_first, channels_last
from factorizer_nnunet.network.upstream import block_from_upstream, load_upstream, own_name

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
CONFIG = {
    "in_channels": 1,
    "out_channels": 2,
    "spatial_size": [16, 16, 16],
    "encoder_width": [8, 16],
    "encoder_depth": [1, 1],
    "decoder_depth": [1],
    "strides": [1, 2],
    "reshape": ["SWMatricize", {"head_dim": 8, "patch_size": 4}],
}


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


def test_fresh_weights_need_no_state() -> None:
    assert from_upstream(CONFIG)(torch.randn(1, 1, 16, 16, 16)).shape == (1, 2, 16, 16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reshape": ["Wavelet", {}]}, "reshape='Wavelet' is unknown; valid: one of"),
        ({"solver": "newton"}, "solver='newton' is unknown; valid: one of"),
        (
            {"spatial_size": [16, 16, 10]},
            r"patch_size=\[4, 4, 4\] does not divide the \[16, 16, 10\] voxels of stage 0",
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
        ValueError, match=r"'stem\.weight' has shape \[8, 2, 3, 3, 3\]; the configuration gives \[8, 1, 3, 3, 3\]"
    ):
        load_upstream(network, {"stem.weight": torch.zeros(8, 2, 3, 3, 3)})
    with pytest.raises(ValueError, match="the weights hold nothing for"):
        load_upstream(network, {"stem.weight": torch.zeros(8, 1, 3, 3, 3)})
