"""``run --hours`` gives each training its share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, TRAINER
from factorizer_nnunet.running.hours import share_hours
from factorizer_nnunet.running.paths import Folders
from factorizer_nnunet.running.settings import RunSettings


def settings(*models: ModelName, folds: tuple[int, ...] = (0, 1, 2, 3, 4)) -> RunSettings:
    folders = Folders(raw=Path("raw"), preprocessed=Path("preprocessed"), results=Path("results"))
    return RunSettings(folders=folders, dataset="Dataset001_Any", models=models, folds=folds, device="cpu")


def model(trainer: str = TRAINER, configuration: str = "3d_fullres") -> ModelName:
    return ModelName(trainer, PLANS, configuration)


@pytest.mark.parametrize(
    ("configurations", "folds", "hours", "slots", "minutes"),
    [
        (("3d_fullres",), (0, 1, 2, 3, 4), 24, 1, 288),
        (("3d_fullres",), (0, 1, 2, 3, 4), 24, 2, 480),  # three rounds
        (("3d_fullres", "2d"), (0, 1, 2, 3, 4), 24, 5, 720),
        (("3d_fullres",), (0,), 0.5, 4, 30),
        (("3d_cascade_fullres",), (0,), 12, 1, 120),  # and five folds of its low resolution
    ],
)
def test_hours_are_shared_by_all_trainings(
    configurations: tuple[str, ...], folds: tuple[int, ...], hours: float, slots: int, minutes: int
) -> None:
    shared = share_hours(settings(*(model(configuration=c) for c in configurations), folds=folds), hours, slots)
    assert {one.trainer for one, _ in shared.trainings} == {f"{TRAINER}_{minutes}m"}
    assert [one.configuration for one in shared.models] == list(configurations)


def test_other_parts_of_the_name_stay() -> None:
    shared = share_hours(settings(model(f"{TRAINER}_50iters_lr1e-3")), 5, 1)
    assert shared.models == (model(f"{TRAINER}_60m_50iters_lr1e-3"),)
    assert replace(shared, models=()) == replace(settings(), models=())


@pytest.mark.parametrize(
    ("trainer", "hours", "message"),
    [
        ("nnUNetTrainer", 24, "cannot set the length of nnUNetTrainer: it is not nnUNetTrainerFactorizer"),
        (f"{TRAINER}Own", 24, "cannot set the length of .*Own: invalid trainer suffix"),
        (f"{TRAINER}_20epochs", 24, "_20epochs has a length of its own"),
        (f"{TRAINER}_6h", 24, "_6h has a length of its own"),
        (TRAINER, 0, "invalid --hours 0"),
        (TRAINER, -1, "invalid --hours -1"),
        (TRAINER, float("nan"), "invalid --hours nan"),
        (TRAINER, float("inf"), "invalid --hours inf"),
        (TRAINER, 0.05, "less than a minute for each of 5 trainings, 1 at a time"),
    ],
)
def test_hours_that_cannot_be_kept_are_refused(trainer: str, hours: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        share_hours(settings(model(trainer)), hours, 1)
