"""The network as nnU-Net builds and runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from factorizer_nnunet.network import Factorizer, FactorizerConfig
from factorizer_nnunet.network.layers import Downsample


def build(ndim: int = 3, stages: int = 3, **settings: object) -> Factorizer:
    strides = settings.pop("strides", [[1] * ndim] + [[2] * ndim] * (stages - 1))
    return Factorizer(2, 3, features_per_stage=[8 * 2**s for s in range(stages)], strides=strides, **settings)


@pytest.mark.parametrize("stride", [2, 3, 5])
def test_downsampling_sees_every_voxel(stride: int) -> None:
    x = torch.randn(1, 2 * stride, 3 * stride, 4, requires_grad=True)
    Downsample(4, 8, (stride, stride), (stride, stride))(x).square().sum().backward()
    assert (x.grad != 0).all()


@pytest.mark.parametrize(("ndim", "size"), [(2, (20, 28)), (3, (12, 20, 8))])
def test_output_has_the_shape_of_the_patch(ndim: int, size: tuple) -> None:
    assert build(ndim)(torch.randn(2, 2, *size)).shape == (2, 3, *size)


def test_deep_supervision_is_switched_as_nnunet_does_and_keeps_the_weights() -> None:
    net = build(stages=4, deep_supervision=True)
    keys = set(net.state_dict())
    x = torch.randn(1, 2, 16, 16, 16)
    assert [tuple(y.shape[2:]) for y in net(x)] == [(16,) * 3, (8,) * 3, (4,) * 3]
    first = net(x)[0]
    net.decoder.deep_supervision = False
    torch.testing.assert_close(net(x), first)
    assert set(build(stages=4).state_dict()) == keys


def test_every_parameter_gets_a_gradient() -> None:
    net = build(deep_supervision=True)
    sum(y.square().mean() for y in net(torch.randn(1, 2, 16, 16, 16))).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"head_dim": 3},
            r"head_dim=3: it does not divide the 8 channels of stage 0; expected one of \[1, 2, 4, 8\]",
        ),
        ({"norm": "batch"}, "invalid norm='batch': expected one of"),
        ({"adapter": "none"}, "invalid adapter='none'"),
        ({"shifts": [-0.5]}, "shifts="),
        ({"depthwise": True}, "invalid depthwise=True: expected one of .*'entry', 'mlp', 'none'"),
        ({"num_iters": 5.0}, "invalid num_iters=5.0: expected an integer"),
        ({"kernel_sizes": []}, "kernel_sizes="),
        ({"strides": [1, 2, 2]}, "a list per stage"),
        ({"num_iters": 0}, "invalid num_iters=0: expected an integer of at least 1"),
        ({"mlp_ratio": 0}, "invalid mlp_ratio=0: expected a number above 0"),
        ({"kernel_sizes": [[2] * 3] * 3}, "kernel_sizes=.*expected .* odd integer"),
        ({"window_sizes": [[8] * 3] * 2}, "window_sizes=.*expected 3 entries"),
        ({"window_sizes": [[3] * 3] * 3}, "cannot be shifted"),
        ({"n_blocks_per_stage": [1, 1]}, "n_blocks_per_stage"),
        ({"strides": None}, "invalid strides=None: expected a list per stage"),
        ({"rank": None}, "invalid rank=None: expected an integer"),
        ({"eps": 0.0}, "invalid eps=0.0: expected 1e-20 to"),
        ({"mlp_ratio": float("inf")}, "invalid mlp_ratio=inf: expected a number"),
        ({"deep_supervision": "false"}, "invalid deep_supervision='false': expected true or false"),
        ({"shifts": [0, 1e-9]}, "shifts=.*small denominators"),
        ({"shifts": [0, 0.9999]}, "shifts=.*small denominators"),
    ],
)
def test_impossible_settings_are_refused_when_built(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head_dims": 8}, "unknown setting 'head_dims': did you mean head_dim"),
        ({"zzz": 8}, "unknown setting 'zzz': expected one of features_per_stage, strides, .*adapter"),
        ({"features_per_stage": [8, 16]}, "missing setting 'strides': give one entry per stage"),
        ({}, "missing setting 'features_per_stage'"),
    ],
)
def test_settings_with_unknown_or_missing_names_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Factorizer(input_channels=1, num_classes=2, **settings)


def test_a_network_of_a_configuration_is_the_one_of_its_settings() -> None:
    config = FactorizerConfig.from_settings({"features_per_stage": [8, 16], "strides": [[1, 1], [2, 2]], "norm": "rms"})
    assert config.kernel_sizes == ((3, 3), (3, 3))
    assert (config.n_blocks_per_stage, config.n_blocks_per_stage_decoder) == ((1, 1), (1,))
    network = Factorizer.from_config(config, 1, 2, deep_supervision=True)
    assert network.config == config and network.decoder.deep_supervision
    assert Factorizer.from_config(network.config, 1, 2).config == config


def test_a_patch_that_the_strides_do_not_divide_is_refused() -> None:
    message = r"patch of \[16, 16, 18\] voxels: the strides require multiples of \[4, 4, 4\]"
    with pytest.raises(ValueError, match=message):
        build()(torch.randn(1, 2, 16, 16, 18))


@pytest.mark.parametrize("settings", [{"position": "learned"}, {"start": "uniform"}])
def test_a_network_with_values_per_voxel_takes_its_patch_only(settings: dict) -> None:
    network = build(patch_size=[32, 32, 32], window_sizes=[[8] * 3] * 3, **settings)
    with pytest.raises(ValueError, match=r"patch of \[16, 32, 32\] voxels: .* for patches of \[32, 32, 32\]"):
        network(torch.randn(1, 2, 16, 32, 32))


def test_the_network_package_needs_no_nnunet() -> None:
    code = "import sys; sys.modules['nnunetv2'] = None; import factorizer_nnunet.network"
    subprocess.run([sys.executable, "-c", code], check=True)
