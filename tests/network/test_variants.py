"""Every variant builds and runs; every setting of the family can be reached from plain JSON."""

from __future__ import annotations

import json

import pytest
import torch

from factorizer_nnunet import network
from factorizer_nnunet.network import VARIANTS, Factorizer, build_variant, variant_arguments


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("patch", [(16, 24, 8), (32, 20)])
def test_variants_build_from_json_and_run(name: str, patch: tuple) -> None:
    arguments = json.loads(json.dumps(variant_arguments(name, patch)))
    outputs = Factorizer(2, 3, **arguments, deep_supervision=True)(torch.randn(1, 2, *patch))
    assert outputs[0].shape == (1, 3, *patch)
    assert build_variant(name, 2, 3, patch)(torch.randn(1, 2, *patch)).shape == (1, 3, *patch)


def test_the_published_widths_go_as_far_as_the_patch_can_be_halved() -> None:
    assert build_variant("swin", 4, 3, (128, 128, 128)).config.features_per_stage == (32, 64, 128, 256, 512)
    assert build_variant("swin", 4, 3, (16, 16, 16)).config.features_per_stage == (32, 64, 128)


def test_the_names_of_earlier_versions_are_the_same_functions() -> None:
    assert network.build_preset is build_variant and network.preset_arguments is variant_arguments


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown variant 'nano': expected one of"):
        build_variant("nano", 1, 2, (16, 16))


FAMILY = [
    {"rank": 2, "solver": "mu", "start": "uniform", "patch_size": [8, 8]},
    {"rank": 2, "solver": "semi", "start": "nndsvd"},
    {"solver": "projected_gradient", "num_grad_steps": 1},
    {"head_dim": None, "num_heads": 2, "border": "cyclic"},
    {"window_sizes": [[None, 4], [4, None]], "shifts": [0, 0.25, 0.5, 0.75]},
    {"position": "learned", "patch_size": [8, 8]},
    {"position": "axial", "patch_size": [8, 8]},
    {"position": "sinusoidal", "dropout": 0.1, "drop_path": 0.2},
    {"window_counts": [[2, 1], [1, 2]], "patch_size": [8, 8]},
    {"shifts": [0, [0.5, 0.25]]},
    {"nmf_stages": [False, True]},
    {"nmf_output": "gate"},
    {"n_conv_per_stage": [1, 2]},
    {"n_conv_per_stage": [3, 1], "depthwise": "mlp"},
    {"norm": "rms", "adapter": "conv", "depthwise": "mlp", "downsample": "overlap", "n_blocks_per_stage": [1, 2]},
]


@pytest.mark.parametrize("settings", FAMILY, ids=lambda settings: "-".join(settings))
def test_every_setting_trains(settings: dict) -> None:
    torch.manual_seed(0)
    built = Factorizer(1, 2, features_per_stage=[8, 16], strides=[[1, 1], [2, 2]], **json.loads(json.dumps(settings)))
    built(torch.randn(2, 1, 8, 8)).square().mean().backward()
    gradients = [p.grad for name, p in built.named_parameters() if "seg_layers" not in name]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        built = Factorizer(1, 2, features_per_stage=[8, 16], strides=[[1, 1], [2, 2]], checkpointing=checkpointing)
        built(torch.ones(1, 1, 8, 8)).square().mean().backward()
        gradients.append([p.grad for p in built.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"border": "mirror"}, "invalid border='mirror': expected one of"),
        ({"position": "learned"}, "position=learned needs the stage sizes: give patch_size, too"),
        ({"start": "uniform"}, "start=uniform needs the stage sizes"),
        ({"window_counts": [[2, 2], [1, 1]]}, "window_counts=.* needs the stage sizes"),
        (
            {"window_counts": [[2, 2], [1, 1]], "window_sizes": [[4, 4], [4, 4]]},
            "window_sizes=.*, window_counts=.*: expected at most one",
        ),
        (
            {"window_counts": [[3, 3], [1, 1]], "patch_size": [8, 8]},
            r"window_counts\[0\]=\[3, 3\]: 8 voxels cannot be divided into 3 equal windows",
        ),
        (
            {"window_sizes": [[8, 8], [8, 8]], "patch_size": [8, 8]},
            r"window_sizes\[1\]=\[8, 8\]: larger than the \[4, 4\] voxels of the stage; expected at most",
        ),
        ({"shifts": [0, [0.5]]}, r"invalid shifts=\(0, \(0.5,\)\): expected numbers in \[0, 1\), or lists of 2"),
        ({"shifts": [0, -1]}, "shifts="),
        ({"shifts": [0, 1 / 3]}, "cannot be shifted by"),
        ({"nmf_stages": [True]}, "nmf_stages=.*expected 2 entries, one per stage"),
        ({"nmf_stages": [1, 0]}, "nmf_stages=.*expected true or false"),
        ({"mlp_ratio": "2"}, "invalid mlp_ratio='2': expected a number"),
        ({"dropout": True}, "invalid dropout=True: expected a number"),
        ({"patch_size": 32}, "invalid patch_size=32: expected null, or an integer of at least 1 per axis"),
        ({"nmf_output": "multiply"}, "invalid nmf_output='multiply': expected one of"),
        ({"n_conv_per_stage": [0, 1]}, "invalid n_conv_per_stage=.*an integer of at least 1 per stage, or null"),
        ({"n_conv_per_stage": [2]}, "invalid n_conv_per_stage=.*expected 2 entries, one per stage"),
        ({"depthwise": "exit"}, "invalid depthwise='exit': expected one of"),
        ({"downsample": "pool"}, "invalid downsample='pool': expected one of"),
        ({"patch_size": [8, 7]}, r"invalid patch_size=\(8, 7\): expected multiples of \[2, 2\]"),
        ({"rank": 9}, "invalid rank=9: expected at most 8"),
        ({"num_heads": 2}, "invalid head_dim=8, num_heads=2: expected one of them"),
        ({"head_dim": None, "num_heads": 3}, "invalid num_heads=3: it does not divide the 8 channels of stage 0"),
        ({"drop_path": 1.0}, "invalid drop_path=1.0: expected a number in \\[0, 1\\)"),
    ],
)
def test_impossible_combinations_are_refused_when_built(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Factorizer(1, 2, features_per_stage=[8, 16], strides=[[1, 1], [2, 2]], **settings)


@pytest.mark.parametrize("patch", [(0, 8, 8), (8.0, 8), (True, 8), 8, None, (), (8,), ("8", 8)])
@pytest.mark.parametrize("name", ["default", "swin"])
def test_impossible_patches_are_refused(name: str, patch: object) -> None:
    with pytest.raises(ValueError, match="invalid patch_size=.*: expected 2 or 3 integers of at least 1"):
        build_variant(name, 1, 2, patch)
