"""A cascade knows on which low-resolution segmentations it was trained."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from plans_example import NAME, MakeTrainer, example_plans

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import CHANGED
from factorizer_nnunet.nnunet.model_folder import FoldFolder
from factorizer_nnunet.nnunet.provenance import split_sources, trained_fold
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

SHAPE = (1, 40, 40, 40)


@pytest.fixture
def segmentations(tmp_path: Path) -> Path:
    """Where the low resolution leaves its segmentations."""
    model = "nnUNetTrainerFactorizer__nnUNetPlans__3d_lowres"
    folder = tmp_path / "nnUNet_results" / NAME / model / "predicted_next_stage" / "3d_fullres"
    folder.mkdir(parents=True)
    for seed, case in enumerate(("case_0", "case_1")):
        save(folder / case, seed)
    return folder


def save(file: Path, seed: int) -> None:
    nnUNetDatasetBlosc2.save_seg(np.random.default_rng(seed).integers(0, 3, SHAPE, np.uint8), str(file))


def started(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, checkpoint: Path | None
) -> nnUNetTrainerFactorizer:
    """A cascade's trainer before its first step, as ``--c`` makes it if there is a checkpoint."""
    plans = example_plans()
    plans["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    trainer = make_trainer(plans=copy.deepcopy(plans))
    monkeypatch.setattr(trainer, "get_dataloaders", lambda: (None, None))
    trainer.initialize()
    if checkpoint is not None:
        trainer.load_checkpoint(str(checkpoint))
    return trainer


@pytest.mark.parametrize("change", ["nothing", "written again", "one voxel", "another case"])
def test_a_cascade_is_not_resumed_on_other_segmentations(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmentations: Path, change: str
) -> None:
    checkpoint = tmp_path / "saved.pth"
    trainer = started(make_trainer, monkeypatch, None)
    (tmp_path / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json").write_text("{}")
    trainer.on_train_start()
    trainer.save_checkpoint(str(checkpoint))
    if change == "written again":
        save(segmentations / "case_1", 1)
    elif change == "one voxel":
        voxels = np.random.default_rng(1).integers(0, 3, SHAPE, np.uint8)
        voxels[0, 5, 6, 7] = (voxels[0, 5, 6, 7] + 1) % 3
        nnUNetDatasetBlosc2.save_seg(voxels, str(segmentations / "case_1"))
    elif change == "another case":
        save(segmentations / "case_1", 0)
    if change in ("nothing", "written again"):
        assert started(make_trainer, monkeypatch, checkpoint).is_cascaded
    else:
        with pytest.raises(UserError, match=r"previous stage's segmentation of case_1 \(changed\)"):
            started(make_trainer, monkeypatch, checkpoint)


def test_a_finished_cascade_is_stale_when_they_change(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmentations: Path
) -> None:
    trainer = started(make_trainer, monkeypatch, None)
    (tmp_path / "nnUNet_preprocessed" / NAME / "dataset_fingerprint.json").write_text("{}")
    trainer.on_train_start()
    trainer.on_train_end()
    fold = FoldFolder(Path(trainer.output_folder))
    sources = split_sources(Path(trainer.preprocessed_dataset_folder), ["case_0"], ["case_1"], segmentations)
    assert trained_fold(fold, sources).changed_sources() == {}
    save(segmentations / "case_0", 7)
    assert trained_fold(fold, sources).changed_sources() == {"previous stage's segmentation of case_0": CHANGED}
