"""nnU-Net's folders with a data set of three images and a model of our trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from nnunet_folders import use_folders_below
from tiny_models import write_dataset, write_model


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    use_folders_below(tmp_path, monkeypatch)
    monkeypatch.setenv("nnUNet_compile", "f")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    write_dataset(tmp_path)
    # nnU-Net's trainers take away from where they came what only a training needs.
    (tmp_path / "nnUNet_preprocessed" / "Dataset509_Untrained" / "gt_segmentations").mkdir()
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def model(root: Path) -> Path:
    return write_model(root)
