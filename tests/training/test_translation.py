"""A stock U-Net's plan becomes a Factorizer of the same stages, strides and widths."""

from __future__ import annotations

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from stock_plans import configuration, stock_kwargs

from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.planning.architecture import NETWORK_CLASS, factorizer_architecture, isotropic_windows
from factorizer_nnunet.training.building import build_network


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
