"""Importing weights, configurations and data sets: what is accepted, and what is reported before writing."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from import_example import (
    NAME,
    base_plans,
    contents,
    describe,
    run_import,
    write_dataset,
    write_json,
)
from upstream_example import CONFIG, upstream_state

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.importing.weights import read_weights

STATE = {"stem.weight": torch.ones(2, 1), "head.weight": torch.ones(3)}


@pytest.mark.parametrize(
    ("content", "left_out"),
    [
        (STATE, ()),
        ({"state_dict": {f"net.{name}": value for name, value in STATE.items()}, "epoch": 3}, ()),
        ({"model": STATE, "optimizer": {"state": {}}}, ()),
        ({"state_dict": {**{f"a.b.{k}": v for k, v in STATE.items()}, "loss.w": torch.ones(1)}}, ("loss.w",)),
        ({f"module.{name}": value for name, value in STATE.items()}, ()),
    ],
)
def test_weights_are_found_where_others_keep_them(tmp_path: Path, content: object, left_out: tuple[str, ...]) -> None:
    torch.save(content, tmp_path / "w.ckpt")
    weights = read_weights(tmp_path / "w.ckpt")
    assert weights.state.keys() == STATE.keys()
    assert all(torch.equal(weights.state[name], value) for name, value in STATE.items())
    assert (weights.left_out, weights.config) == (left_out, None)


def save(content: object) -> Callable[[Path], None]:
    return lambda folders: torch.save(content, folders / "weights.pt")


def flip_bit(folders: Path) -> None:
    """In the middle of the file, which is in a weight."""
    file = folders / "weights.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)


BAD_WEIGHTS = {
    "missing": (lambda folders: (folders / "weights.pt").unlink(), r"cannot read .*weights\.pt: No such file"),
    "text": (
        lambda folders: (folders / "weights.pt").write_text("no weights"),
        "damaged or not a file that torch can read",
    ),
    "empty": (
        lambda folders: (folders / "weights.pt").write_bytes(b""),
        "damaged or not a file that torch can read",
    ),
    "cut off": (
        lambda folders: (folders / "weights.pt").write_bytes((folders / "weights.pt").read_bytes()[:5000]),
        "damaged or not a file that torch can read",
    ),
    "a flipped bit": (flip_bit, "damaged or not a file that torch can read"),
    "code": (
        save({"state_dict": STATE, "hyper_parameters": argparse.Namespace(lr=1)}),
        r"asks for argparse\.Namespace\).*execute code from the file, so it is refused.*weights_only=False",
    ),
    "metrics of MONAI": (
        save({"model": STATE, "logger": {"metrics": defaultdict(list)}}),
        r"asks for collections\.defaultdict\).*in a MONAI bundle the key is 'model'",
    ),
    "a module": (save(torch.nn.Linear(1, 1)), r"asks for torch\.nn\.modules\.linear\.Linear\).*refused"),
    "a list": (save([torch.ones(1)]), "contains no state_dict but list"),
    "another network": (save({"conv.weight": torch.ones(1)}), r"has no parameter stem\.weight; it has conv\.weight"),
    "two networks": (save({"a.stem.weight": torch.ones(1), "b.stem.weight": torch.ones(1)}), "2 networks, under 'a.'"),
    "no tensor": (save({"stem.weight": 1}), r"stem\.weight is not a tensor but int"),
    "too few": (save(STATE), "does not fit the configuration: 'stem.weight' has shape"),
    "a parameter missing": (
        save({k: v for k, v in upstream_state(CONFIG).items() if k != "encoder.blocks.1.downsample.bias"}),
        "contain nothing for 'encoder.downsamples.0.conv.bias'",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_bad_weights_are_reported_and_nothing_is_written(
    folders: Path, change: Callable[[Path], None], message: str
) -> None:
    change(folders)
    before = contents(folders)
    with pytest.raises(UserError, match=message):
        run_import(folders)
    assert contents(folders) == before


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones(1)}, r"no arrays named state/NAME"),
        ({"state/stem.weight": np.array([{}])}, r"not an \.npz of plain arrays"),
        ({"state/stem.weight": np.array(["text"])}, r"not an \.npz of plain arrays"),
        ({"state/stem.weight": np.ones(1), "config": "{"}, r"not an \.npz of plain arrays"),
        (None, r"not an \.npz of plain arrays"),
    ],
)
def test_bad_arrays_are_reported(tmp_path: Path, arrays: dict[str, Any] | None, message: str) -> None:
    path = tmp_path / "weights.npz"
    if arrays is None:
        path.write_bytes(b"no arrays")
    else:
        np.savez(path, **arrays)
    with pytest.raises(UserError, match=message):
        read_weights(path)


BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "misspelled": ({"num_iter": 9}, "unknown 'num_iter': expected one of in_channels"),
    "another part": ({"act": "$nn.GELU"}, r"act='\$nn\.GELU' has no counterpart: expected 'ReLU'"),
    "a reference": ({"spatial_size": "@roi_size"}, "invalid spatial_size='@roi_size': expected 2 or 3 numbers"),
    "no list": ({"encoder_width": 8}, "invalid encoder_width=8: expected a width per stage"),
    "a negative depth": ({"encoder_depth": [1, -1]}, "encoder_depth"),
    "strides of 2 axes": ({"strides": [1, [2, 2]]}, "invalid strides=.*: expected .* each an integer or 3 of them"),
    "no pair": ({"reshape": "SWMatricize"}, "invalid reshape='SWMatricize': expected a name and its options"),
    "unknown matrices": ({"reshape": ["Tensorize", {}]}, "unknown reshape='Tensorize'"),
    "unknown option": ({"reshape": ["Matricize", {"head": 1}]}, "reshape: unknown 'head'"),
    "option of wrong form": ({"reshape": ["Matricize", {"head_dim": "8"}]}, "reshape: invalid head_dim='8'"),
    "too many windows": (
        {"reshape": ["SWMatricize", {"head_dim": 8, "grid_size": 99, "shifts": [1]}]},
        r"configuration in .*config\.json",
    ),
    "indivisible": ({"spatial_size": [16, 16, 9]}, r"configuration in .*config\.json"),
    "text as number": ({"mlp_ratio": "2"}, "invalid mlp_ratio='2': expected a number"),
}


@pytest.mark.parametrize(("change", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_configurations_are_reported(folders: Path, change: dict[str, Any], message: str) -> None:
    write_json(folders / "config.json", {**CONFIG, **change})
    before = contents(folders)
    with pytest.raises(UserError, match=message):
        run_import(folders)
    assert contents(folders) == before


def test_a_configuration_may_be_written_as_in_the_authors_bundles(folders: Path) -> None:
    bundle = {
        "_target_": "factorizer.Factorizer",
        "norm": "$factorizer.LayerNorm",
        "act": "$nn.ReLU",
        "factorize": "$factorizer.NMF",
        "init": "uniform",
        "num_grad_steps": None,
        "reshape": ["$factorizer.SWMatricize", CONFIG["reshape"][1]],
    }
    write_json(folders / "config.json", {**CONFIG, **bundle})
    run_import(folders)


BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no configuration": ({"config_file": None}, r"weights\.pt contains no configuration.*--config"),
    "no config file": ({"config_file": Path("gone.json")}, r"cannot read gone\.json"),
    "unknown data set": ({"dataset": 8}, f"no data set 8 in nnUNet_preprocessed .*Known there: {NAME}"),
    "no plans": ({"plans": "mine"}, r"has no plans mine .*plan -d 7 --no-preprocess --plans-name mine"),
    "unknown configuration of plans": ({"configuration": "3d"}, "no configuration '3d', only 2d, 3d_lowres"),
    "3D for 2D": ({"configuration": "2d"}, r"2d has 2 axes, the weights' spatial_size \[16, 16, 8\] has 3"),
    "cascade": ({"configuration": "3d_cascade_fullres"}, "second stage of a cascade"),
    "spacing of 2 axes": ({"spacing_mm": [1, 1]}, r"the spacing \[1, 1\] has 2 values, 3d_fullres has 3 axes"),
    "no spacing": ({"spacing_mm": [1, 0, 1]}, r"the spacing is \[1, 0, 1\] mm"),
    "a folder as name": ({"plans_name": "a/b"}, "'a/b' cannot name the plans of a model"),
    "a name that nnU-Net parts": ({"plans_name": "a__b"}, "'a__b' cannot name the plans of a model"),
    "no fold": ({"fold": "first"}, "invalid fold 'first'"),
    "unknown axes": ({"axes": "zyx"}, "unknown axes 'zyx': choose from xyz, plans"),
    "channels twice": ({"input_order": [0, 0]}, r"input order \[0, 0\] must contain each number from 0 to 1 once"),
    "too few outputs": ({"output_order": [1, 0]}, r"output order \[1, 0\] must contain each number from 0 to 2 once"),
    "plans that exist": ({"plans_name": "nnUNetFactorizerPlans"}, "exists with other content and is not overwritten"),
}


@pytest.mark.parametrize(("change", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_are_reported(folders: Path, change: dict[str, Any], message: str) -> None:
    before = contents(folders)
    with pytest.raises(UserError, match=message):
        run_import(folders, **change)
    assert contents(folders) == before


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (describe(3, 3), "the weights take 2 channels, dataset.json has 3: channel 0, channel 1, channel 2"),
        (describe(2, 4), "the weights give 3 outputs, dataset.json requires 4: background, label 1"),
        (describe(2, 2, regions=True), "the weights give 3 outputs, dataset.json requires 2: region 0"),
        ({**describe(2, 3), "labels": {"a": 1}}, "nnU-Net cannot read its labels and channels: Background"),
    ],
)
def test_data_sets_that_do_not_fit_are_reported(folders: Path, description: dict[str, Any], message: str) -> None:
    write_dataset(folders, description)
    with pytest.raises(UserError, match=message):
        run_import(folders)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_name": "Dataset008_Other"}, "was made for Dataset008_Other, not for Dataset007_Tiny"),
        ({"configurations": None}, "configurations must be an object, not None"),
        ({"transpose_forward": [0, 1]}, "transpose_forward must be 0, 1 and 2 in some order"),
        ({"configurations": {"3d_fullres": {"inherits_from": "gone"}}}, "cannot read configuration 3d_fullres"),
        ({"configurations": {"3d_fullres": {"architecture": {}}}}, "configuration 3d_fullres has no 'batch_size'"),
    ],
)
def test_damaged_plans_are_reported(folders: Path, change: dict[str, Any], message: str) -> None:
    write_dataset(folders, describe(2, 3), {**base_plans(), **change})
    with pytest.raises(UserError, match=message):
        run_import(folders)
