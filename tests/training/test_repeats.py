"""Trainers that train a model again: nnU-Net finds them, and keeps their results apart."""

from __future__ import annotations

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from factorizer_nnunet.nnunet.absent_channels import drops_channels
from factorizer_nnunet.nnunet.environment import use_own_trainer
from factorizer_nnunet.nnunet.names import parse_repeat, repeat_trainer


@pytest.mark.parametrize(
    "trainer",
    [
        "nnUNetTrainerFactorizer",
        "nnUNetTrainerFactorizer_3epochs_channeldrop",
        "nnUNetTrainer",
        "nnUNetTrainer_5epochs",
    ],
)
def test_nnunet_finds_a_repeat_of_any_trainer(trainer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    use_own_trainer()
    name = repeat_trainer(trainer, 3)
    found = recursive_find_trainer_class_by_name(name)
    assert found.__name__ == name == f"{trainer}_repeat3"
    assert found is recursive_find_trainer_class_by_name(name)
    stock = recursive_find_trainer_class_by_name(trainer)
    assert issubclass(found, stock) or found.budget == stock.budget
    assert parse_repeat(name) == (trainer, 3) and parse_repeat(trainer) == (trainer, 1)
    assert drops_channels(name) == drops_channels(trainer)


@pytest.mark.parametrize("name", ["nnUNetTrainerNowhere_repeat2", "nnUNetTrainer_repeat1", "nnUNetTrainer_repeat02"])
def test_other_names_are_not_trainers(name: str) -> None:
    use_own_trainer()
    with pytest.raises(RuntimeError):
        recursive_find_trainer_class_by_name(name)
