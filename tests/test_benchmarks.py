"""What the benchmarks compare against is right: the literal network, the tasks, the bookkeeping of runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import explain_cost
from benchmarks.hippocampus import planned_runs
from benchmarks.speed.literal import LiteralFactorizer
from benchmarks.speed.measure import Setting, multiply_adds, peak_bytes
from benchmarks.speed.networks import NETWORKS, NotApplicableError
from benchmarks.speed.traffic import layer_traffic
from factorizer_nnunet.network import build_variant


@pytest.mark.parametrize(
    ("variant", "patch"), [("swin", (16, 32, 16)), ("brats_published", (16, 16, 16)), ("swin", (32, 16))]
)
def test_the_literal_network_computes_the_same_numbers(variant: str, patch: tuple) -> None:
    torch.manual_seed(0)
    network = build_variant(variant, 2, 3, patch).double()
    x = torch.randn(1, 2, *patch, dtype=torch.float64)
    torch.testing.assert_close(LiteralFactorizer(network, patch)(x), network(x), rtol=1e-9, atol=1e-10)


def test_the_literal_network_refuses_what_it_cannot_compute() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        LiteralFactorizer(build_variant("swin", 1, 2, (20, 16, 16)), (20, 16, 16))
    with pytest.raises(ValueError, match="not of the published form"):
        LiteralFactorizer(build_variant("default", 1, 2, (16, 16, 16)), (16, 16, 16))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "SwinUNETR"])
def test_every_network_of_the_speed_benchmark_runs(name: str) -> None:
    network = NETWORKS[name](1, 2, (32, 32))
    with torch.no_grad():
        assert network(torch.randn(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_the_drawn_model_and_images_are_explained(tmp_path: Path) -> None:
    image = explain_cost.IMAGES["small"]
    explain_cost.write_images(tmp_path / "small images", image)
    explain_cost.write_model(tmp_path / "small default", image, "default")
    found = explain_cost.in_a_process(
        explain_cost.measured, tmp_path, "small", "default", False, explain_cost.ONE_HEAD, "cpu", 1
    )
    assert found.maps == 1 and found.seconds > 0 and found.peak_mb > 100


def test_what_is_not_installed_or_does_not_fit_is_left_out_with_its_reason() -> None:
    with pytest.raises(NotApplicableError, match="MONAI is not installed|multiples of 32"):
        NETWORKS["SwinUNETR"](1, 2, (32, 24))
    with pytest.raises(NotApplicableError, match="do not divide"):
        NETWORKS["literal swin"](1, 2, (20, 32))


def test_memory_and_multiply_adds_of_a_known_layer() -> None:
    layer, x = torch.nn.Linear(64, 128, bias=False), torch.randn(1000, 64)
    assert multiply_adds(layer, x) == 1000 * 64 * 128
    assert peak_bytes(layer, x, Setting("cpu", "float32", False), "forward") == 1000 * 128 * 4


@pytest.mark.parametrize(("values", "in_memory"), [(2**22, 1), (100, 0)])
def test_traffic_of_a_known_layer(values: int, in_memory: int) -> None:
    network = torch.nn.Sequential(torch.nn.ReLU())
    found = layer_traffic(network, {"ReLU": "activation"}, torch.randn(values))["activation"]
    assert (found.moved, found.needed) == (in_memory * 8 * values, 8 * values)


def test_equal_wall_time_means_more_of_our_iterations() -> None:
    runs = planned_runs(400, 2000, [0, 1], 1.6)
    trainers = {run.comparison: run.trainer for run in runs if run.budget == "short"}
    assert trainers["nnU-Net"].endswith("Stock_8epochs_50iters")
    assert trainers["equal iterations"].endswith("Factorizer_8epochs_50iters")
    assert trainers["equal wall time"].endswith("Factorizer_12epochs_50iters")
    assert [run.fold for run in runs if run.budget == "long"] == [0, 0, 0]
