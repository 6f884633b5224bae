"""Ways to mark absent channels that the benchmark compares with ours."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.ext_trainer import absent_channel_trainers
from benchmarks.ext_trainer.absent_channel_trainers import MARK, without_factor
from factorizer_nnunet.training.channel_drop import without_channels


def test_what_the_network_sees_without_a_channel() -> None:
    image = torch.rand(2, 4, 5, 6, 7) + 0.5
    present = torch.tensor([[True, True, False, True], [True] * 4])
    seen = without_channels(image, present.numpy())
    network = nn.Module()
    mask = present.view(2, 4, 1, 1, 1)
    torch.testing.assert_close(without_factor(network, (seen,))[0], image * mask)
    network.register_parameter(MARK, nn.Parameter(torch.arange(4.0)))
    marked = torch.where(mask, image, torch.arange(4.0).view(1, 4, 1, 1, 1))
    torch.testing.assert_close(without_factor(network, (seen,))[0], marked)


def test_names_say_the_length() -> None:
    trainer = absent_channel_trainers.nnUNetTrainerBenchmarkMarked_3epochs_7iters_channeldrop
    assert trainer.__name__ == "nnUNetTrainerBenchmarkMarked_3epochs_7iters_channeldrop"
    assert (trainer.budget.epochs, trainer.budget.iterations_per_epoch, trainer.budget.channel_drop) == (3, 7, True)
