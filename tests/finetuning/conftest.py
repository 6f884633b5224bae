"""nnU-Net's folders with a trained model and a raw data set to fine-tune it on."""

from __future__ import annotations

from pathlib import Path

import pytest
from finetuning_example import write_source, write_target
from nnunet_folders import use_folders_below


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_folders_below(tmp_path, monkeypatch)
    monkeypatch.setenv("nnUNet_compile", "f")
    return tmp_path


@pytest.fixture
def model(folders: Path) -> Path:
    return write_source(folders / "elsewhere")


@pytest.fixture
def target(folders: Path) -> Path:
    return write_target(folders / "nnUNet_raw")
