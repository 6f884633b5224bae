"""A stock U-Net's plan becomes a Factorizer of the same stages, strides and widths."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from plans_example import example_plans
from stock_plans import configuration, stock_kwargs

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.network import PLANNED_FORMS, Factorizer
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.planning.architecture import NETWORK_CLASS, factorizer_architecture, isotropic_windows
from factorizer_nnunet.training import building
from factorizer_nnunet.training.building import build_network, plans_with_translation, trained_architecture


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_shape_of_the_network_is_the_unets(ndim: int, residual: bool) -> None:
    stock = stock_kwargs(ndim, num_stages=6, residual=residual)
    architecture = factorizer_architecture(stock, [1.0] * ndim)
    ours = architecture["arch_kwargs"]
    assert architecture["network_class_name"] == NETWORK_CLASS
    for key in ("strides", "kernel_sizes", "features_per_stage"):
        assert ours[key] == stock[key]
    assert len(ours["n_blocks_per_stage"]) == 6
    assert len(ours["n_blocks_per_stage_decoder"]) == 5


def test_the_callers_plan_stays_as_it_was() -> None:
    stock = stock_kwargs()
    factorizer_architecture(stock, (1.0, 1.0, 1.0))
    assert stock == stock_kwargs()


@pytest.mark.parametrize(("width", "expected"), [(32, 32), (30, 32), (3, 8), (320, 320), (19, 16)])
def test_widths_go_to_the_nearest_that_heads_divide(width: int, expected: int) -> None:
    architecture = factorizer_architecture({"features_per_stage": [width], "strides": [[1, 1, 1]]}, (1.0, 1.0, 1.0))
    assert architecture["arch_kwargs"]["features_per_stage"] == [expected]


def test_plain_numbers_stand_for_every_axis() -> None:
    stock = {"features_per_stage": [8, 16], "strides": [1, 2], "kernel_sizes": 3}
    ours = factorizer_architecture(stock, (1.0, 1.0))["arch_kwargs"]
    assert ours["strides"] == [[1, 1], [2, 2]]
    assert ours["kernel_sizes"] == [[3, 3], [3, 3]]


@pytest.mark.parametrize("missing", ["features_per_stage", "strides"])
def test_a_plan_of_another_network_is_reported(missing: str) -> None:
    stock = {key: value for key, value in stock_kwargs().items() if key != missing}
    with pytest.raises(ValueError, match=f"has no '{missing}'; it is not the plan of a U-Net"):
        factorizer_architecture(stock, (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("spacing", "strides", "expected"),
    [
        ((1.0, 1.0, 1.0), [[1, 1, 1], [2, 2, 2]], [[8, 8, 8], [8, 8, 8]]),
        ((4.0, 1.0, 1.0), [[1, 1, 1], [1, 2, 2], [1, 2, 2]], [[2, 8, 8], [4, 8, 8], [8, 8, 8]]),
        ((8.0, 1.0, 1.0), [[1, 1, 1]], [[1, 8, 8]]),
        ((0.5, 0.7), [[1, 1], [2, 2]], [[8, 6], [8, 6]]),
    ],
)
def test_windows_are_about_as_long_in_mm_on_every_axis(
    spacing: tuple[float, ...], strides: list[list[int]], expected: list[list[int]]
) -> None:
    assert isotropic_windows(spacing, strides) == expected


@pytest.mark.parametrize("residual", [False, True])
def test_an_anisotropic_stock_plan_builds_and_runs(residual: bool) -> None:
    """Thick slices: planned with no downsampling between slices at first, and kernels of 1 there."""
    settings = configuration(3, residual=residual)
    settings["spacing"] = [5.0, 0.6, 0.6]
    settings["architecture"]["arch_kwargs"].update(
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]], kernel_sizes=[[1, 3, 3], [1, 3, 3], [3, 3, 3]]
    )
    network = build_network(ConfigurationManager(settings), 2, 3, deep_supervision=True)
    assert isinstance(network, Factorizer)
    assert network.config.total_stride == (2, 4, 4)
    assert network.config.kernel_sizes[0] == (1, 3, 3)
    outputs = network(torch.randn(1, 2, 6, 20, 24))
    assert [tuple(output.shape[2:]) for output in outputs] == [(6, 20, 24), (6, 10, 12)]


def test_our_own_plan_is_taken_as_it_stands() -> None:
    settings = configuration()
    settings["architecture"] = factorizer_architecture(stock_kwargs(), (1.0, 1.0, 1.0))
    settings["architecture"]["arch_kwargs"]["num_iters"] = 2
    network = build_network(ConfigurationManager(settings), 2, 3, deep_supervision=False)
    assert network.config.num_iters == 2


# Models that are trained from stock plans, now and with earlier versions


def own_architecture(plans: dict[str, Any], name: str = "3d_fullres") -> dict[str, Any]:
    return plans["configurations"][name]["architecture"]


def translated(plans: dict[str, Any], model: ModelFolder, name: str = "3d_fullres") -> dict[str, Any]:
    """What a trainer of a fold has, as it is read from a file."""
    before = json.dumps(plans)
    found = plans_with_translation(plans, name, model)
    assert json.dumps(plans) == before
    return json.loads(json.dumps(found))


def test_a_new_model_says_in_its_plans_what_was_trained(tmp_path: Path) -> None:
    plans, model = example_plans(), ModelFolder(tmp_path / "model")
    found = translated(plans, model)
    assert own_architecture(found) == factorizer_architecture(stock_kwargs(), configuration()["spacing"])
    plans["configurations"]["3d_fullres"] = found["configurations"]["3d_fullres"]
    assert found == plans  # all else as before
    assert translated(found, model) == found
    assert trained_architecture(ConfigurationManager(found["configurations"]["3d_fullres"])) == own_architecture(found)


@pytest.mark.parametrize("form", PLANNED_FORMS)
def test_further_folds_have_the_network_of_the_first(tmp_path: Path, form: str) -> None:
    """Also after a version with another default."""
    plans, model = example_plans(), ModelFolder(tmp_path)
    first = translated(plans, ModelFolder(tmp_path / "none"))
    architecture = factorizer_architecture(stock_kwargs(), configuration()["spacing"], form=PLANNED_FORMS[form])
    first["configurations"]["3d_fullres"]["architecture"] = architecture
    model.plans_file.write_text(json.dumps(first))
    assert own_architecture(translated(plans, model)) == architecture


def test_a_network_that_was_edited_stays_that_of_further_folds(tmp_path: Path) -> None:
    plans, model = example_plans(), ModelFolder(tmp_path)
    edited = translated(plans, ModelFolder(tmp_path / "none"))
    own_architecture(edited)["arch_kwargs"]["num_iters"] = 4
    model.plans_file.write_text(json.dumps(edited))
    assert own_architecture(translated(plans, model))["arch_kwargs"]["num_iters"] == 4


@pytest.mark.parametrize("inherits", [False, True])
def test_a_model_of_an_earlier_version_keeps_its_network(tmp_path: Path, inherits: bool) -> None:
    """Its plans have the U-Net, which stood for the plain form."""
    plans, model, name = example_plans(), ModelFolder(tmp_path), "3d_fullres"
    if inherits:
        name = "3d_cascade_fullres"
        plans["configurations"][name] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    model.plans_file.write_text(json.dumps(plans))
    assert translated(plans, model, name) == plans
    network = build_network(ConfigurationManager(configuration()), 2, 3, deep_supervision=False)
    assert (network.config.nmf_output, network.config.n_conv_per_stage) == ("add", None)
    new = own_architecture(translated(plans, ModelFolder(tmp_path / "none"), name), name)
    assert new["arch_kwargs"]["nmf_output"] == "gate"


def test_plans_of_another_network_in_the_folder_count_for_nothing(tmp_path: Path) -> None:
    """A continued training compares its checkpoint with the plans, and a new one replaces them, as in nnU-Net."""
    plans, model = example_plans(), ModelFolder(tmp_path)
    others = example_plans()
    own_architecture(others)["arch_kwargs"]["features_per_stage"] = [16, 32, 64]
    wider = translated(others, ModelFolder(tmp_path / "none"))
    entries = ({}, {"architecture": []}, {"architecture": {"network_class_name": NETWORK_CLASS, "arch_kwargs": 1}})
    unusable = [{"configurations": {"3d_fullres": entry}} for entry in entries]
    for content in (others, wider, {}, {"configurations": {}}, *unusable):
        model.plans_file.write_text(json.dumps(content))
        assert translated(plans, model) == translated(plans, ModelFolder(tmp_path / "none"))


def test_plans_that_another_fold_is_writing_are_waited_for(tmp_path: Path) -> None:
    plans, model = example_plans(), ModelFolder(tmp_path)
    text = json.dumps(plans)
    model.plans_file.write_text(text[:100])
    writer = threading.Timer(0.3, model.plans_file.write_text, [text])
    writer.start()
    assert translated(plans, model) == plans
    writer.join()


def test_unreadable_plans_of_a_model_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_PAUSE", 0)
    model = ModelFolder(tmp_path)
    model.plans_file.write_text("{")
    with pytest.raises(UserError, match=r"plans\.json.* move .* away to train the model again"):
        plans_with_translation(example_plans(), "3d_fullres", model)
