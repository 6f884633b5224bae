"""Trainers for ``benchmarks.channel_subsets``: other ways to say to a network which channels are absent.

Our ``_channeldrop`` trainers set absent channels to 0 and multiply the others by channels / present channels. These get
the same samples. ``nnUNetTrainerBenchmarkZeroed_10epochs_20iters_channeldrop`` takes the factor back.
``nnUNetTrainerBenchmarkMarked_10epochs_20iters_channeldrop`` takes it back, and fills an absent channel with a number
that is learned for each channel.
"""

from __future__ import annotations

import functools

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from factorizer_nnunet.training.budget import budget_from_suffix
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

MARK = "absent_channel_mark"  # name of the learned numbers in checkpoints


def without_factor(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Take the factor of the present channels back; a hook that runs before the network.

    Args:
        network: with learned numbers as ``MARK``, or without.
        inputs: the image alone, (batch, channels, *spatial).
    """
    (image,) = inputs
    axes = tuple(range(2, image.ndim))
    present = image.abs().amax(axes, keepdim=True) > 0
    image = image * present.sum(1, keepdim=True) / image.shape[1]
    mark = getattr(network, MARK, None)
    return (image,) if mark is None else (torch.where(present, image, mark.view(1, -1, *[1] * len(axes))),)


def build(
    marked: bool,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    num_input_channels: int,
    num_output_channels: int,
    enable_deep_supervision: bool = True,
) -> nn.Module:
    """Build our network, with ``without_factor`` before it; the other arguments are nnU-Net's."""
    network = nnUNetTrainerFactorizer.build_network_architecture(
        plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
    )
    if marked:
        network.register_parameter(MARK, nn.Parameter(torch.zeros(num_input_channels)))
    network.register_forward_pre_hook(without_factor)
    return network


class nnUNetTrainerBenchmarkZeroed(nnUNetTrainerFactorizer):
    """Absent channels are 0, and the others as they are."""

    build_network_architecture = staticmethod(functools.partial(build, False))


class nnUNetTrainerBenchmarkMarked(nnUNetTrainerFactorizer):
    """Absent channels have a learned number, and the others are as they are."""

    build_network_architecture = staticmethod(functools.partial(build, True))


@functools.cache
def _variant(name: str, base: type[nnUNetTrainerFactorizer]) -> type[nnUNetTrainerFactorizer]:
    budget = budget_from_suffix(name.removeprefix(base.__name__))
    return type(name, (base,), {"budget": budget, "__module__": __name__})


def __getattr__(name: str) -> type[nnUNetTrainerFactorizer]:
    for base in (nnUNetTrainerBenchmarkZeroed, nnUNetTrainerBenchmarkMarked):
        if name.startswith(base.__name__ + "_"):
            return _variant(name, base)
    raise AttributeError(name)
