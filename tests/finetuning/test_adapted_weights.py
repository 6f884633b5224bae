"""Weights for other channels and outputs give the outputs that follow from those of the trained network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from finetuning_example import source_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.finetuning.matching import Matched, Matching
from factorizer_nnunet.finetuning.weights import Build, adapted, check_shapes, edge_layers, shapes
from factorizer_nnunet.nnunet.environment import use_own_trainer
from factorizer_nnunet.prediction.model import network_of

SHAPE = (1, 3, 16, 16, 16)
CHANNELS, OUTPUTS = ("a", "b", "c"), ("background", "x", "y")
SAME = Matched(Matching(CHANNELS, CHANNELS, (0, 1, 2)), Matching(OUTPUTS, OUTPUTS, (0, 1, 2)))


@pytest.fixture(params=["nnUNetTrainerFactorizer", "nnUNetTrainer"])
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Build:
    """The network of our trainer, and that of nnU-Net's."""
    monkeypatch.setenv("nnUNet_extTrainer", "")
    use_own_trainer()
    manager = PlansManager(source_plans())
    settings = manager.get_configuration("3d_fullres")
    return lambda channels, outputs: network_of(request.param, manager, settings, channels, outputs, "the test")


@pytest.fixture
def trained(build: Build) -> nn.Module:
    torch.manual_seed(0)
    return build(3, 3).eval()


def finetuned(build: Build, trained: nn.Module, matched: Matched, **changes: Any) -> nn.Module:
    kinds = {"drops_channels": False, "old_regions": False, "new_regions": False, **changes}
    weights = adapted(trained.state_dict(), edge_layers(build, 3, 3), matched, **kinds)
    network = build(len(matched.channels.new), len(matched.outputs.new)).eval()
    network.load_state_dict(weights)
    return network


def channels(*sources: int | None) -> Matched:
    return Matched(Matching(CHANNELS, tuple(map(str, range(len(sources)))), sources), SAME.outputs)


def outputs(new: tuple[str, ...], *sources: int | None, old: tuple[str, ...] = OUTPUTS) -> Matched:
    return Matched(SAME.channels, Matching(old, new, sources))


@torch.no_grad()
def test_the_same_channels_and_outputs_change_nothing(build: Build, trained: nn.Module) -> None:
    network = finetuned(build, trained, SAME)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=0)


@torch.no_grad()
def test_channels_in_another_order_give_the_same_output(build: Build, trained: nn.Module) -> None:
    image = torch.randn(SHAPE)
    torch.testing.assert_close(finetuned(build, trained, channels(2, 0, 1))(image[:, [2, 0, 1]]), trained(image))


@torch.no_grad()
def test_a_model_trained_without_channels_keeps_its_factor(build: Build, trained: nn.Module) -> None:
    image = torch.randn(SHAPE)
    alone = finetuned(build, trained, channels(1), drops_channels=True)(image[:, [1]])
    seen = torch.zeros(SHAPE)
    seen[:, 1] = 3 * image[:, 1]  # as channels are left out in training
    torch.testing.assert_close(alone, trained(seen), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("sources", [(1,), (0, 1, 2, None), (None,), (0, 0, 2), (None, 1)])
def test_the_response_to_noise_keeps_its_size(
    build: Build, trained: nn.Module, sources: tuple[int | None, ...]
) -> None:
    layers = edge_layers(build, 3, 3)
    weights = finetuned(build, trained, channels(*sources)).state_dict()
    (name, *_) = [name for name in layers.inputs if weights[name].ndim == 5]
    old, new = trained.state_dict()[name], weights[name]
    assert new.shape[1] == len(sources)
    assert math.isclose(float(new.square().sum()), float(old.square().sum()), rel_tol=1e-5)
    if None in sources:  # a new channel is the mean, up to the factor of all
        mean, added = old.mean(1), new[:, sources.index(None)]
        torch.testing.assert_close(added / added.norm(), mean / mean.norm())


@torch.no_grad()
def test_outputs_by_name_and_new_ones(build: Build, trained: nn.Module) -> None:
    image = torch.randn(SHAPE)
    old = trained(image)
    new = finetuned(build, trained, outputs(("background", "y", "new"), 0, 2, None))(image)
    torch.testing.assert_close(new, torch.stack((old[:, 0], old[:, 2], old[:, 1:].mean(1)), 1))


@torch.no_grad()
def test_labels_become_regions_and_regions_labels(build: Build, trained: nn.Module) -> None:
    image = torch.randn(SHAPE)
    old = trained(image)
    regions = finetuned(build, trained, outputs(("y", "new"), 2, None), new_regions=True)(image)
    expected = torch.stack((old[:, 2] - old[:, 0], old[:, 1:].mean(1) - old[:, 0]), 1)
    torch.testing.assert_close(regions, expected, rtol=1e-4, atol=1e-4)
    names = ("p", "q", "r")
    labels = outputs(("background", "q"), None, 1, old=names)
    logits = finetuned(build, trained, labels, old_regions=True)(image)
    torch.testing.assert_close(logits.softmax(1)[:, 1], old[:, 1].sigmoid(), rtol=1e-4, atol=1e-4)


def test_another_network_is_refused(build: Build, trained: nn.Module) -> None:
    expected = shapes(build, 3, 3)
    check_shapes(trained.state_dict(), expected, "Trainer")
    with pytest.raises(UserError, match="Trainer builds another network than the model has: .* Choose with -tr"):
        check_shapes(trained.state_dict(), shapes(build, 4, 3), "Trainer")
