"""A training of two processes that augment on their devices, or choose to; on the CPU they talk through gloo."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from augmentation_example import save_cases
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from plans_example import NAME, MakeTrainer, dataset_json, example_plans
from torch import distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from factorizer_nnunet.nnunet.environment import (
    AUGMENTATION_VARIABLE,
    STEP_VARIABLE,
    Augmentation,
    augmentation_setting,
)
from factorizer_nnunet.training import data_wait
from factorizer_nnunet.training.augmentation.augmenter import DeviceAugmenter
from factorizer_nnunet.training.trainer import trainer_variant


def limit_by_data() -> None:
    """Let the workers' batches of this process come late."""
    read = nnUNetDataLoader.generate_train_batch

    def slowly(self: nnUNetDataLoader) -> dict[str, Any]:
        if type(self) is nnUNetDataLoader:
            time.sleep(3.0)  # longer than a step, on a busy machine, too
        return read(self)

    nnUNetDataLoader.generate_train_batch = slowly


def training_of_two(rank: int, folder: str) -> None:
    """What nnU-Net's run_ddp does, for a trainer on the CPU; then its weights are written."""
    data_wait.FIRST_STEPS, data_wait.MEASURED_STEPS = 1, 2
    chooses = augmentation_setting() is Augmentation.AUTO
    if chooses and rank == 1:
        limit_by_data()
    faulthandler.enable()  # a crash says where it was
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    sys.modules[nnUNetTrainer.__module__].DDP = lambda network, device_ids: DistributedDataParallel(network)
    torch.manual_seed(rank)
    variant = trainer_variant("nnUNetTrainerFactorizer_2epochs_3iters")
    trainer = variant(example_plans(), "3d_fullres", 0, dataset_json(), torch.device("cpu"))
    trainer.device = torch.device("cpu")  # nnU-Net sets the GPU of the process
    trainer.initialize()
    assert trainer.is_ddp and trainer.batch_size == 1
    trainer.run_training()
    assert isinstance(trainer.dataloader_train, DeviceAugmenter), "in both processes"
    assert isinstance(trainer.dataloader_val, SingleThreadedAugmenter if chooses else DeviceAugmenter)
    torch.save(trainer.network.module.state_dict(), Path(folder) / f"weights_{rank}.pt")
    dist.barrier()  # neither closes its connections while the other still talks
    dist.destroy_process_group()
    # At once: the trainer, and threads of gloo, may hold tensors when Python ends, which aborts the process at times
    # (PyTorch #179291). All that is tested has been done and written.
    sys.stdout.flush()
    os._exit(0)


@pytest.mark.slow  # two processes that import nnU-Net
@pytest.mark.parametrize("augmentation", ["device", "auto"])
def test_both_processes_end_with_the_same_weights(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augmentation: str
) -> None:
    make_trainer()  # writes the folders
    folder = tmp_path / "nnUNet_preprocessed" / NAME / "nnUNetPlans_3d"
    for file in folder.iterdir():
        file.unlink()
    save_cases(folder, ("case_0", "case_1"), highest=2)
    variables = {AUGMENTATION_VARIABLE: augmentation, STEP_VARIABLE: "fused", "nnUNet_n_proc_DA": "0"}
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    multiprocessing.spawn(training_of_two, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"weights_{rank}.pt") for rank in range(2))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)
        assert torch.isfinite(value).all()
    logs = (tmp_path / "nnUNet_results" / NAME).rglob("training_log_*.txt")  # one of each process
    chosen = "of the time, above 20%): the training device augments from now on"
    assert sum(log.read_text().count(chosen) for log in logs) == (augmentation == "auto")
    (final,) = (tmp_path / "nnUNet_results" / NAME).rglob("checkpoint_final.pth")
    assert final.stat().st_size
