"""Device augmentation on a GPU with worker processes: a complete training, and pinned memory after many starts."""

from __future__ import annotations

import gc
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augmentation_example import FORMS, loader_of, save_cases
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from plans_example import dataset_json, example_plans
from short_trainings import losses_of

from factorizer_nnunet.training.augmentation import augmenter
from factorizer_nnunet.training.augmentation.augmenter import DeviceAugmenter, augment_on_device
from factorizer_nnunet.training.trainer import trainer_variant

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
STARTS, SETTLED = 20, 5


@pytest.mark.usefixtures("real_cases")
def test_a_complete_training_copies_from_pinned_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    pinned: list[bool] = []
    transformed = augmenter.transformed_batch

    def watched(pipeline: Any, boxes: dict[str, Any], device: torch.device) -> dict[str, Any]:
        pinned.extend(part.is_pinned() for part in (*boxes["data"], *boxes["target"]))
        return transformed(pipeline, boxes, device)

    monkeypatch.setattr(augmenter, "transformed_batch", watched)
    variant = trainer_variant("nnUNetTrainerFactorizer_3epochs_5iters")
    trainer = variant(example_plans(), "3d_fullres", 0, dataset_json(), torch.device("cuda"))
    trainer.initialize()
    trainer.run_training()
    assert isinstance(trainer.dataloader_train, DeviceAugmenter) and isinstance(trainer.dataloader_val, DeviceAugmenter)
    assert pinned and all(pinned)
    assert not multiprocessing.active_children()
    losses = losses_of(trainer)
    assert len(losses["train_losses"]) == 3 and np.isfinite([losses["train_losses"], losses["val_losses"]]).all()
    assert list((tmp_path / "nnUNet_results").rglob("checkpoint_final.pth"))


def test_pinned_memory_does_not_grow_with_starts(tmp_path: Path) -> None:
    cases = save_cases(tmp_path / "cases")
    bytes_after = []
    for _ in range(STARTS):
        loader = loader_of(FORMS["3D"], cases, batch_size=2)
        stock = NonDetMultiThreadedAugmenter(loader, None, 2, 2, pin_memory=True, wait_time=0.002)
        made = augment_on_device(stock, torch.device("cuda"), print)
        for _ in range(10):
            assert next(made)["data"].is_cuda
        made.finish()
        torch.cuda.synchronize()
        del loader, stock, made
        gc.collect()
        bytes_after.append(torch.cuda.host_memory_stats()["allocated_bytes.current"])
    assert bytes_after[0] > 0  # pinned memory was used
    # PyTorch keeps what was freed, in powers of two, and boxes differ in size: so the level may still rise a little.
    assert bytes_after[-1] < 2 * bytes_after[SETTLED - 1]
