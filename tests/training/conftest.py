"""Trainers on the CPU, in folders of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from augmentation_example import save_cases
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from plans_example import NAME, MakeTrainer, dataset_json, example_plans, write_folders
from short_trainings import ShortTrainings

from factorizer_nnunet.nnunet.environment import AUGMENTATION_VARIABLE
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer, trainer_variant


@pytest.fixture
def make_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTrainer:
    """Make a trainer by its name; folders are written for the first plans only."""

    def make(
        name: str = "nnUNetTrainerFactorizer", configuration: str = "3d_fullres", plans: dict[str, Any] | None = None
    ) -> nnUNetTrainerFactorizer:
        plans = example_plans() if plans is None else plans
        if not (tmp_path / "nnUNet_raw").exists():
            write_folders(tmp_path, monkeypatch, plans)
        monkeypatch.setenv("nnUNet_compile", "f")
        trainer = nnUNetTrainerFactorizer if name == "nnUNetTrainerFactorizer" else trainer_variant(name)
        return trainer(plans, configuration, 0, dataset_json(), torch.device("cpu"))

    return make


@pytest.fixture
def short(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShortTrainings]:
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)  # takes longer than an epoch
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield ShortTrainings(make_trainer, tmp_path)
    torch.set_num_threads(threads)


@pytest.fixture
def real_cases(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preprocessed cases that a trainer's own loaders can read; augmentation on the device, in this process."""
    make_trainer()  # writes the folders
    folder = tmp_path / "nnUNet_preprocessed" / NAME / "nnUNetPlans_3d"
    for file in folder.iterdir():
        file.unlink()
    save_cases(folder, ("case_0", "case_1"), highest=2)
    monkeypatch.setenv(AUGMENTATION_VARIABLE, "device")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
