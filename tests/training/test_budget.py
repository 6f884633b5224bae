"""The suffix of a trainer's name is its budget, or is refused."""

from __future__ import annotations

import pytest

from factorizer_nnunet.nnunet.absent_channels import advice_for, drops_channels
from factorizer_nnunet.nnunet.names import TRAINER
from factorizer_nnunet.training.budget import Budget, budget_from_suffix

SUFFIXES = {
    "": Budget(),
    "_20epochs": Budget(epochs=20),
    "_50iters": Budget(iterations_per_epoch=50),
    "_lr3e-4": Budget(learning_rate=3e-4),
    "_lr0.01": Budget(learning_rate=0.01),
    "_1epoch": Budget(epochs=1),
    "_6h": Budget(minutes=360),
    "_0.5h_lr3e-4": Budget(minutes=30, learning_rate=3e-4),
    "_30m_50iters": Budget(minutes=30, iterations_per_epoch=50),
    "_lr1": Budget(learning_rate=1.0),
    "_20epochs_lr2.5e-4": Budget(epochs=20, learning_rate=2.5e-4),
    "_channeldrop": Budget(channel_drop=True),
    "_6h_channeldrop": Budget(minutes=360, channel_drop=True),
    "_2epochs_lr3e-4_channeldrop": Budget(epochs=2, learning_rate=3e-4, channel_drop=True),
    "_lr1e-3_warmup100": Budget(learning_rate=1e-3, warmup=100),
    "_freezestem_freezedecoder_channeldrop": Budget(freeze=("stem", "decoder"), channel_drop=True),
    "_2epochs_repeat12": Budget(epochs=2),
    "_channeldrop_repeat2": Budget(channel_drop=True),
    "_20epochs_50iters_lr3e-4": Budget(epochs=20, iterations_per_epoch=50, learning_rate=3e-4),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_suffix_says_the_budget(suffix: str) -> None:
    assert budget_from_suffix(suffix) == SUFFIXES[suffix]


@pytest.mark.parametrize(
    "suffix",
    [
        "_20epo",
        "20epochs",
        "_6hours",
        "_6h_20epochs",
        "_1h_30m",
        "_1.5m",
        "_epochs",
        "_50iters_20epochs",
        "_20epochs_",
        "_-1epochs",
        "_lr-1",
        "_lr",
        "_Lr1",
        "_x",
        "_channeldrop_20epochs",
        "_channeldrops",
        "_freezehead",
        "_freezeencoder_warmup5",
        "_repeat1",
        "_repeat2_channeldrop",
    ],
)
def test_other_suffixes_are_reported_with_an_example(suffix: str) -> None:
    with pytest.raises(ValueError, match=rf"invalid trainer suffix '{suffix}': .*e\.g\. _20epochs_50iters_lr3e-4"):
        budget_from_suffix(suffix)


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        ("_0epochs", "epochs"),
        ("_0iters", "iterations_per_epoch"),
        ("_0h", ": hours"),
        ("_0m", ": minutes"),
        ("_lr0", "learning_rate"),
        ("_lr0.0", "learning_rate"),
        ("_warmup0", "warmup"),
    ],
)
def test_nothing_cannot_be_a_budget(suffix: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be above 0"):
        budget_from_suffix(suffix)


@pytest.mark.parametrize(("iterations", "validation"), [(250, 50), (10, 2), (2, 1), (1, 1)])
def test_validation_keeps_nnunets_proportion_and_never_vanishes(iterations: int, validation: int) -> None:
    assert Budget(iterations_per_epoch=iterations).validation_iterations == validation


def test_without_iterations_validation_is_nnunets_own() -> None:
    assert Budget(epochs=3).validation_iterations is None


@pytest.mark.parametrize(
    ("trainer", "advised"),
    [
        (f"{TRAINER}_3epochs", f"{TRAINER}_3epochs_channeldrop"),
        (f"{TRAINER}_3epochs_repeat2", f"{TRAINER}_3epochs_channeldrop"),
        (f"{TRAINER}Mine", f"{TRAINER}_channeldrop"),
        (f"{TRAINER}_mine", f"{TRAINER}_channeldrop"),
        ("nnUNetTrainer_5epochs", f"{TRAINER}_channeldrop"),
    ],
)
def test_an_advised_trainer_exists(trainer: str, advised: str) -> None:
    assert advice_for(trainer).endswith(f" -tr {advised}") and drops_channels(advised)
    budget_from_suffix(advised.removeprefix(TRAINER))
